"""Start a service and try on it what once broke it: a table of promise, tried, held and figure; status 1 where one did not hold."""

import sys

from tests.app.server import ROOT, start_server
from tests.attack.attacks import ATTACKS, HEADER_SECONDS, Outcome


def main() -> int:
    """Try all; returns the exit status."""
    settings = {"header_seconds": HEADER_SECONDS, "body_seconds": HEADER_SECONDS, "max_bytes_in_flight": 100_000_000}
    lost = 0
    nobody = {"label_studio_url": "http://127.0.0.1:9", "label_studio_token": "none"}
    with start_server(ROOT / "models", workers=2, allowed_hosts="127.0.0.1", **settings, **nobody) as server:
        server.wait_until_ready()
        print("| promise | tried | held | figure |\n|---|---|---|---|")
        for promise, tried, attack in ATTACKS:
            try:
                outcome = attack(server)
            except Exception as error:
                outcome = Outcome(False, repr(error)[:200])
            lost += not outcome.held
            print(f"| {promise} | {tried} | {'yes' if outcome.held else 'NO'} | {outcome.figure} |", flush=True)
        if server.process.poll() is not None:
            print(f"The service has ended with status {server.process.returncode}.")
            lost += 1
        if "Traceback" in server.log.read_text():
            print("The log holds a traceback.")
            lost += 1
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
