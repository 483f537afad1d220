//! Reading embeddings.
