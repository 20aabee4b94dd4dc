// The whole network in one launch: one block of 64 threads a patch, everything between the layers in shared
// memory. The offsets are those of model.rs, in groups of four numbers; model.rs asserts them.
// network.ptx beside this file is made from it by make_ptx.py.

#define CONV1_WEIGHT 0      /* [9][1][16] */
#define CONV1_BIAS 36       /* [16] */
#define CONV2_WEIGHT 40     /* [9][16][32] */
#define CONV2_BIAS 1192     /* [32] */
#define DENSE1_WEIGHT 1200  /* [512][64] */
#define DENSE1_BIAS 9392    /* [64] */
#define DENSE2_WEIGHT 37632 /* [64][11], counted in single numbers: 11 is no multiple of four */
#define DENSE2_BIAS 38336   /* [11], likewise */

#define PIXELS 64
#define CLASSES 11
/* The 8x8 image with a border of zeros, so that the convolutions need no bounds checks. */
#define BORDERED 10

static __device__ __forceinline__ void add_scaled(float4 &sum, float factor, float4 value) {
    sum.x = fmaf(factor, value.x, sum.x);
    sum.y = fmaf(factor, value.y, sum.y);
    sum.z = fmaf(factor, value.z, sum.z);
    sum.w = fmaf(factor, value.w, sum.w);
}

static __device__ __forceinline__ float4 relu(float4 v) {
    return make_float4(fmaxf(v.x, 0.0f), fmaxf(v.y, 0.0f), fmaxf(v.z, 0.0f), fmaxf(v.w, 0.0f));
}

static __device__ __forceinline__ float4 add(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

static __device__ __forceinline__ float4 largest(float4 a, float4 b) {
    return make_float4(fmaxf(a.x, b.x), fmaxf(a.y, b.y), fmaxf(a.z, b.z), fmaxf(a.w, b.w));
}

extern "C" __global__ void __launch_bounds__(PIXELS)
network(const float4 *__restrict__ weights, const float *__restrict__ patches, float *__restrict__ logits) {
    __shared__ float image[BORDERED * BORDERED];
    __shared__ float4 conv1[BORDERED * BORDERED * 4]; /* [10][10][16] */
    __shared__ float4 pooled[128];                    /* [4][4][32] */
    __shared__ float4 partial[64];                    /* [4 quarters of the inputs][64] */
    __shared__ float hidden[64];

    const float *single = reinterpret_cast<const float *>(weights);
    const int patch = blockIdx.x;
    const int lane = threadIdx.x;
    const int row = lane / 8, column = lane % 8;
    const int centre = (row + 1) * BORDERED + column + 1;

    for (int i = lane; i < BORDERED * BORDERED; i += PIXELS) {
        const int y = i / BORDERED, x = i % BORDERED;
        if (y == 0 || y == 9 || x == 0 || x == 9) {
            image[i] = 0.0f;
            for (int q = 0; q < 4; q++) conv1[i * 4 + q] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
    }
    image[centre] = patches[patch * PIXELS + lane];
    __syncthreads();

    /* First convolution: one pixel a thread, 16 channels. */
    {
        float4 sum[4];
        for (int q = 0; q < 4; q++) sum[q] = weights[CONV1_BIAS + q];
        for (int tap = 0; tap < 9; tap++) {
            const float pixel = image[(row + tap / 3) * BORDERED + column + tap % 3];
            for (int q = 0; q < 4; q++) add_scaled(sum[q], pixel, weights[CONV1_WEIGHT + tap * 4 + q]);
        }
        for (int q = 0; q < 4; q++) conv1[centre * 4 + q] = relu(sum[q]);
    }
    __syncthreads();

    /* Second convolution and pool: one 2x2 block and 8 of the 32 channels a thread, so that each weight is read
       once for four pixels. */
    {
        const int cell = lane / 4, channels = (lane % 4) * 2;
        const int top = (cell / 4) * 2, left = (cell % 4) * 2;
        float4 p[4], q[4];
        for (int i = 0; i < 4; i++) p[i] = q[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (int tap = 0; tap < 9; tap++) {
            const int corner = (top + tap / 3) * BORDERED + left + tap % 3;
            for (int quad = 0; quad < 4; quad++) {
                float4 x[4];
                x[0] = conv1[corner * 4 + quad];
                x[1] = conv1[(corner + 1) * 4 + quad];
                x[2] = conv1[(corner + BORDERED) * 4 + quad];
                x[3] = conv1[(corner + BORDERED + 1) * 4 + quad];
                const float4 *w = weights + CONV2_WEIGHT + (tap * 16 + quad * 4) * 8 + channels;
                const float4 u0 = w[0], v0 = w[1], u1 = w[8], v1 = w[9];
                const float4 u2 = w[16], v2 = w[17], u3 = w[24], v3 = w[25];
                for (int i = 0; i < 4; i++) {
                    add_scaled(p[i], x[i].x, u0);
                    add_scaled(q[i], x[i].x, v0);
                    add_scaled(p[i], x[i].y, u1);
                    add_scaled(q[i], x[i].y, v1);
                    add_scaled(p[i], x[i].z, u2);
                    add_scaled(q[i], x[i].z, v2);
                    add_scaled(p[i], x[i].w, u3);
                    add_scaled(q[i], x[i].w, v3);
                }
            }
        }
        /* The bias is the same for the four pixels, so it and the relu may come after the pool. */
        const float4 pmax = largest(largest(p[0], p[1]), largest(p[2], p[3]));
        const float4 qmax = largest(largest(q[0], q[1]), largest(q[2], q[3]));
        pooled[cell * 8 + channels] = relu(add(pmax, weights[CONV2_BIAS + channels]));
        pooled[cell * 8 + channels + 1] = relu(add(qmax, weights[CONV2_BIAS + channels + 1]));
    }
    __syncthreads();

    /* First dense layer: four outputs a thread, over a quarter of the 512 inputs. */
    {
        const int outputs = lane % 16, quarter = lane / 16;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (int i = quarter * 32; i < quarter * 32 + 32; i++) {
            const float4 x = pooled[i];
            const float4 *w = weights + DENSE1_WEIGHT + i * 64 + outputs;
            add_scaled(sum, x.x, w[0]);
            add_scaled(sum, x.y, w[16]);
            add_scaled(sum, x.z, w[32]);
            add_scaled(sum, x.w, w[48]);
        }
        partial[lane] = sum;
    }
    __syncthreads();
    if (lane < 16) {
        const float4 total = add(add(partial[lane], partial[lane + 16]), add(partial[lane + 32], partial[lane + 48]));
        const float4 value = relu(add(total, weights[DENSE1_BIAS + lane]));
        hidden[lane * 4] = value.x;
        hidden[lane * 4 + 1] = value.y;
        hidden[lane * 4 + 2] = value.z;
        hidden[lane * 4 + 3] = value.w;
    }
    __syncthreads();

    /* Second dense layer: one class a thread. */
    if (lane < CLASSES) {
        float score = single[DENSE2_BIAS + lane];
        for (int i = 0; i < 64; i++) score = fmaf(hidden[i], single[DENSE2_WEIGHT + i * CLASSES + lane], score);
        logits[patch * CLASSES + lane] = score;
    }
}
