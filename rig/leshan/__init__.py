"""Real Leshan servers and clients, where Java and Maven Central can be had."""
