//! The network as a compute shader: one dispatch, one submission and one read-back a batch.
//!
//! The device and the queue come from outside, so that all users of a card share one context; the pipeline is
//! built apart from the classifier, so that it is compiled once a device.

use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::infer::{
    Backend, Classifier, InferenceError, Logits, MAX_BATCH, Patch, one_line, padded, vram_needed,
};
use crate::model::Weights;

const SHADER: &str = include_str!("../shaders/network.wgsl");
const ENTRY_POINT: &str = "network";

/// A batch that takes longer than this is a hung device: llvmpipe needs milliseconds for the largest one.
const BATCH_TIMEOUT: Duration = Duration::from_secs(20);

/// The compiled shader of one device. Cloning shares it.
#[derive(Debug, Clone)]
pub struct NetworkPipeline {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

impl NetworkPipeline {
    /// Compiles the shader for `device`. Takes milliseconds to a second: keep the result with the device.
    ///
    /// # Errors
    ///
    /// [`InferenceError::Build`] with the compiler's words.
    pub fn build(device: &wgpu::Device) -> Result<Self, InferenceError> {
        let built = scoped(device, || {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some("digits network"),
                source: wgpu::ShaderSource::Wgsl(SHADER.into()),
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some("digits network"),
                layout: None,
                module: &module,
                entry_point: Some(ENTRY_POINT),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // The shader writes every cell before it reads it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            let layout = pipeline.get_bind_group_layout(0);
            Self { pipeline, layout }
        });
        built.map_err(|error| InferenceError::Build { backend: Backend::Wgpu, reason: one_line(error) })
    }
}

/// Runs the network on a device through wgpu.
#[derive(Debug)]
pub struct WgpuClassifier {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    patches: wgpu::Buffer,
    logits: wgpu::Buffer,
    read_back: wgpu::Buffer,
    /// Patches that fit the buffers.
    capacity: usize,
}

impl WgpuClassifier {
    /// Uploads the weights and reserves buffers for batches of `batch` patches (1 to [`MAX_BATCH`]):
    /// [`vram_needed`] bytes.
    ///
    /// # Errors
    ///
    /// [`InferenceError::OutOfMemory`] or [`InferenceError::Device`]; nothing is kept on the device then.
    pub fn new(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        pipeline: &NetworkPipeline,
        weights: &Weights,
        batch: usize,
    ) -> Result<Self, InferenceError> {
        Self::with_buffers(device, queue, pipeline, weights, batch, |descriptor| {
            Ok(device.create_buffer(descriptor))
        })
    }

    /// As [`WgpuClassifier::new`], with buffers from `create`: for callers that keep account of device memory.
    /// `create` is called four times, for [`vram_needed`] bytes together.
    ///
    /// # Errors
    ///
    /// As [`WgpuClassifier::new`], and what `create` returns.
    pub fn with_buffers<E: From<InferenceError>>(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        pipeline: &NetworkPipeline,
        weights: &Weights,
        batch: usize,
        mut create: impl FnMut(&wgpu::BufferDescriptor<'_>) -> Result<wgpu::Buffer, E>,
    ) -> Result<Self, E> {
        use wgpu::BufferUsages as Usage;
        let capacity = batch.clamp(1, MAX_BATCH);
        let numbers = padded(weights);
        let built = scoped(device, || {
            let mut buffer = |label, size: usize, usage| {
                let size = size as u64;
                create(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
            };
            let scores = capacity * size_of::<Logits>();
            let weights =
                buffer("digits weights", size_of_val(&numbers[..]), Usage::STORAGE | Usage::COPY_DST)?;
            let patches =
                buffer("digits patches", capacity * size_of::<Patch>(), Usage::STORAGE | Usage::COPY_DST)?;
            let logits = buffer("digits logits", scores, Usage::STORAGE | Usage::COPY_SRC)?;
            let read_back = buffer("digits read-back", scores, Usage::MAP_READ | Usage::COPY_DST)?;
            let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("digits network"),
                layout: &pipeline.layout,
                entries: &[
                    wgpu::BindGroupEntry { binding: 0, resource: weights.as_entire_binding() },
                    wgpu::BindGroupEntry { binding: 1, resource: patches.as_entire_binding() },
                    wgpu::BindGroupEntry { binding: 2, resource: logits.as_entire_binding() },
                ],
            });
            queue.write_buffer(&weights, 0, bytemuck::cast_slice(&numbers));
            // Submitted here, so that the upload is part of loading and not of the first frame.
            queue.submit([]);
            Ok::<_, E>(Self {
                device: device.clone(),
                queue: queue.clone(),
                pipeline: pipeline.pipeline.clone(),
                bindings,
                patches,
                logits,
                read_back,
                capacity,
            })
        });
        built.map_err(|error| match error {
            wgpu::Error::OutOfMemory { .. } => {
                InferenceError::OutOfMemory { backend: Backend::Wgpu, bytes: vram_needed(capacity) }
            }
            other => failed(other),
        })?
    }

    /// One batch that fits the buffers, its scores appended to `scores`.
    fn batch(&self, patches: &[Patch], scores: &mut Vec<Logits>) -> Result<(), InferenceError> {
        let bytes = size_of::<Logits>() as u64 * patches.len() as u64;
        self.queue.write_buffer(&self.patches, 0, bytemuck::cast_slice(patches));
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.bindings, &[]);
            pass.dispatch_workgroups(patches.len() as u32, 1, 1);
        }
        encoder.copy_buffer_to_buffer(&self.logits, 0, &self.read_back, 0, bytes);
        let submission = self.queue.submit([encoder.finish()]);
        let (sender, mapped) = mpsc::sync_channel(1);
        self.read_back.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
            // The receiver is gone only where the wait below has failed and said so.
            let _ = sender.send(result);
        });
        let waited = self
            .device
            .poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: Some(BATCH_TIMEOUT) });
        // Another thread that polls the device at this moment may be the one to run the callback, a little later.
        let mapped = waited.map_err(failed).and_then(|_| mapped.recv_timeout(BATCH_TIMEOUT).map_err(failed));
        let outcome = mapped.and_then(|mapped| mapped.map_err(failed)).and_then(|()| {
            let view = self.read_back.get_mapped_range(..bytes).map_err(failed)?;
            scores.extend_from_slice(bytemuck::cast_slice(&view));
            Ok(())
        });
        // Also cancels a mapping that is still under way, so that the next batch starts clean.
        self.read_back.unmap();
        outcome
    }
}

impl Classifier for WgpuClassifier {
    fn classify(&mut self, patches: &[Patch]) -> Result<Vec<Logits>, InferenceError> {
        let mut scores = Vec::with_capacity(patches.len());
        for chunk in patches.chunks(self.capacity) {
            scoped(&self.device, || self.batch(chunk, &mut scores)).map_err(failed)??;
        }
        Ok(scores)
    }

    fn backend(&self) -> Backend {
        Backend::Wgpu
    }
}

/// Runs `work` and catches what the device reports meanwhile; uncaught, wgpu would panic.
fn scoped<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let value = work();
    // On native backends these are ready at once: the errors were gathered on this thread.
    let errors = [now(validation.pop()), now(memory.pop()), now(internal.pop())];
    // Running out of memory is the cause of the validation errors that follow it.
    let [validation, memory, internal] = errors;
    match memory.or(validation).or(internal) {
        None => Ok(value),
        Some(error) => Err(error),
    }
}

/// The result of a future that is ready; `None` where it is not.
fn now<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => None,
    }
}

fn failed(error: impl std::fmt::Display) -> InferenceError {
    InferenceError::Device { backend: Backend::Wgpu, reason: one_line(error) }
}

#[cfg(test)]
#[path = "wgpu_tests.rs"]
mod tests;
