"""What `/docs` and `/openapi.json` say beyond the signatures of the endpoints."""
