"""The pool: what its users see, and how calls get from there to workers and back."""
