"""`/docs` and `/openapi.json` say more than the signatures of the endpoints do: it stands here."""
