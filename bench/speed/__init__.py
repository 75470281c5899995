"""How fast the suite trains, measured beside networks that its users could build from public packages instead."""
