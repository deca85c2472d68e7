"""Pictures and their alpha channel: resizing, guided filters, regions, repairs of alpha, hidden colours."""
