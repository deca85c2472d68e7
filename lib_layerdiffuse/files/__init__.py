"""Layer files on disk and on the hub: found, chosen by name, downloaded, written whole or not at all."""
