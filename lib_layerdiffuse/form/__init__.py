"""One table of arguments, from which accordion, infotext and API of every interface follow; ranges of options."""
