"""The adapters: one provider a module, each imported when it is first used."""
