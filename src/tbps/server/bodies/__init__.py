"""JSON bodies of requests and answers, from which the OpenAPI description is generated."""
