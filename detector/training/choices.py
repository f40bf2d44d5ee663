"""Which settings name an entry of a table, and which table: for errors before anything is read, and for the reference."""
