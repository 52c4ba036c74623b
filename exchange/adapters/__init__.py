"""Where the exchange meets sockets, files and clocks: servers, clients, the journal on a disk."""
