"""The packages below the two scripts, in the order of their imports: each imports only those before it.

errors, flags, atomic < data < privacy < attacks < storage < training < report. None imports a file above lira/."""
