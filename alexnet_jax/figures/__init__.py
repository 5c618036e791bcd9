"""The paper's figures, of any run: each module draws one and writes nothing."""
