//! In place of the wgpu backend in a build without the feature `wgpu`: it opens nothing and offers nothing.

/// No contexts.
#[derive(Default)]
pub(crate) struct PoolContexts;

/// No context.
#[derive(Default)]
pub(crate) struct LeaseContext;
