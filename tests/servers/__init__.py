"""What the tests talk to instead of the world: real servers with faults on demand. No test lives here."""
