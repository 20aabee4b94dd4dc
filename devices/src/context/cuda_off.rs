//! In place of the CUDA backend in a build without the feature `cuda`: it opens nothing and offers nothing.

/// No contexts.
#[derive(Default)]
pub(crate) struct PoolContexts;

/// No context.
#[derive(Default)]
pub(crate) struct LeaseContext;
