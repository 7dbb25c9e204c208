"""The authors' own work is brought in: their weight files become models that serve, and our code is compared with theirs."""
