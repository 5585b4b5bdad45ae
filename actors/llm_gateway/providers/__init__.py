"""Adapters of chat providers: one provider a module, each imported when it is first used."""
