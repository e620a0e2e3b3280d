"""Providers: one upstream, or one kind of upstream, each; they do not know each other."""
