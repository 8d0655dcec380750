"""Routes of the application, one module per resource."""
