"""The only room that knows every other: settings, processes, the loop that carries decisions out, and the drill."""
