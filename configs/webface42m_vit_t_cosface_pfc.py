"""A transformer with partial FC on WebFace42M: 2,059,906 identities, 42,474,557 images, on 8 ranks.

Data: WebFace42M of the WebFace260M benchmark, aligned to 112 x 112 and packed with `python -m tools.records pack`, in
data/webface42m.
Schedule: arcface_torch's configs/wf42m_pfc03_40epoch_8gpu_vit_t.py (insightface 7fadd42), in bf16 where the hardware
has it. Transformers are trained by AdamW with a warm-up there, residual nets by SGD.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.rec = "data/webface42m"
config.num_classes = 2059906
config.num_image = 42474557

config.network = "vit_t_dp005_mask0"
config.precision = "auto"  # bf16, or fp16 on GPUs older than Ampere
config.num_workers = 8

config.head = "cosface"
config.head_options = {"scale": 64.0, "margin": 0.4}
config.sample_rate = 0.3

config.batch_size = 512
config.optimizer = "adamw"
config.lr = 1e-3
config.lr_power = 1.0
config.weight_decay = 0.1
config.warmup_epoch = 4.0
config.num_epoch = 40
