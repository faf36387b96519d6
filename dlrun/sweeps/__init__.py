"""Many runs: which jobs a sweep's words ask for, worker processes that do them, and a record of where it stands."""
