"""Learning histories: source algorithms, resumable collection, an HDF5 store, sampling and audit.

Letters in shapes: b batch, t time, n episodes, m histories, o observation features, a actions. PyTorch is imported by
the sources that train networks alone, and only when they collect.
"""

from cccad_data.audit.verify import Fault as Fault
from cccad_data.audit.verify import verify as verify
from cccad_data.collecting.collection import collect as collect
from cccad_data.collecting.source import Source as Source
from cccad_data.errors import CollectionError as CollectionError
from cccad_data.errors import DataError as DataError
from cccad_data.errors import FolderInUseError as FolderInUseError
from cccad_data.errors import HistoryFileError as HistoryFileError
from cccad_data.errors import SamplingError as SamplingError
from cccad_data.errors import SourceError as SourceError
from cccad_data.errors import StorageError as StorageError
from cccad_data.errors import UnfitValueError as UnfitValueError
from cccad_data.errors import UnknownFamilyError as UnknownFamilyError
from cccad_data.family import Task as Task
from cccad_data.family import TaskFamily as TaskFamily
from cccad_data.histories.dataset import Histories as Histories
from cccad_data.histories.dataset import early_late_returns as early_late_returns
from cccad_data.histories.dataset import learning_curve as learning_curve
from cccad_data.histories.history import TaskHistories as TaskHistories
from cccad_data.histories.merging import merge as merge
from cccad_data.histories.merging import write_dataset as write_dataset
from cccad_data.histories.owner import owned as owned
from cccad_data.histories.owner import owner_of as owner_of
from cccad_data.jobs.inline import InlineSpec as InlineSpec
from cccad_data.jobs.processes import ProcessesSpec as ProcessesSpec
from cccad_data.jobs.ray import RaySpec as RaySpec
from cccad_data.sampling.detours import DetourSpec as DetourSpec
from cccad_data.sampling.sampler import Sampler as Sampler
from cccad_data.sampling.sampler import SamplerSpec as SamplerSpec
from cccad_data.sources.bandits import ThompsonSpec as ThompsonSpec
from cccad_data.sources.bandits import UCBSpec as UCBSpec
from cccad_data.sources.expert import ExpertSpec as ExpertSpec
from cccad_data.sources.noisy_oracle import NoisyOracleSpec as NoisyOracleSpec
from cccad_data.sources.ppo import PPOSpec as PPOSpec
from cccad_data.sources.q_learning import QLearningSpec as QLearningSpec
from cccad_data.sources.sb3 import SB3Spec as SB3Spec
from cccad_data.sources.uniform import RandomSpec as RandomSpec
