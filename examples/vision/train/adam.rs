//! Adam with decoupled weight decay (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019).

use quark_vision::model::{PARAMETERS, TENSORS};

const MEAN_DECAY: f32 = 0.9;
const SQUARE_DECAY: f32 = 0.999;
const EPSILON: f32 = 1e-8;
/// Share of each weight, biases excepted, that a step of size 1 takes away.
const WEIGHT_DECAY: f32 = 0.02;

pub(crate) struct Adam {
    steps: i32,
    means: Vec<f32>,
    squares: Vec<f32>,
    /// 0 for biases.
    decay: Vec<f32>,
}

impl Adam {
    pub(crate) fn new() -> Self {
        let mut decay = vec![WEIGHT_DECAY; PARAMETERS];
        for bias in TENSORS.iter().filter(|spec| spec.shape.len() == 1) {
            decay[bias.range()].fill(0.0);
        }
        Self { steps: 0, means: vec![0.0; PARAMETERS], squares: vec![0.0; PARAMETERS], decay }
    }

    /// Moves `numbers` against `gradient`.
    pub(crate) fn step(&mut self, numbers: &mut [f32], gradient: &[f32], rate: f32) {
        self.steps += 1;
        let mean_scale = 1.0 / (1.0 - MEAN_DECAY.powi(self.steps));
        let square_scale = 1.0 / (1.0 - SQUARE_DECAY.powi(self.steps));
        let moments = self.means.iter_mut().zip(&mut self.squares);
        for (((number, &slope), (mean, square)), &decay) in
            numbers.iter_mut().zip(gradient).zip(moments).zip(&self.decay)
        {
            *mean = MEAN_DECAY * *mean + (1.0 - MEAN_DECAY) * slope;
            *square = SQUARE_DECAY * *square + (1.0 - SQUARE_DECAY) * slope * slope;
            let step = *mean * mean_scale / ((*square * square_scale).sqrt() + EPSILON);
            *number -= rate * (step + decay * *number);
        }
    }
}
