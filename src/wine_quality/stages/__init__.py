"""The five stages. Each reads files, calls one pure function and writes files."""
