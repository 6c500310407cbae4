"""What the commands of a round import, loaded once: `tests.faults.child` forks them from a process that has it."""

import accelerate
import tensorboard.compat.proto.event_pb2
import tensorboard.summary.writer.record_writer
import matplotlib.pyplot
import s3fs
import scipy.ndimage
import transformers.models.clip.modeling_clip

import labelgen.probe
import pipeline.cli
import pipeline.stages.scoring
import pipeline.stages.students
import segtrain.train
