"""Every setting: what it means, how it is loaded, how it is written down.

section      what a group of settings is
settings     the groups of a run, and `Config`, which holds them all
data         the settings of preference data        losses/      those of the loss
adapter      what is trained                        quantization  a base model in four bits
gate         the rules of the gate, and the measures that they may be about
judges       the settings of judges             capabilities  those of a user's own tasks
signals      what is watched on the way         stopping     when training ends early, and what becomes the policy
loading      YAML and overrides to a `Config`       describe     a `Config` to YAML, with what each setting means
yaml_text    the dialect of YAML                        commands     commands to paste, with every option they need
stages       several of them in one file               sweep         many of them that differ in few settings
rounds       runs whose pairs the model wrote itself
distributed  several processes that train one policy    service     what a job service offers, and to whom
given        names or files in place of settings        moved        where the models of a run are now
foreign/     the settings of other trainers by their names
"""

from tiebreak.config.adapter import AdapterConfig
from tiebreak.config.capabilities import (
    Compliance,
    ExactAnswer,
    LmEvalConfig,
    MultipleChoice,
    PlainText,
    Refusal,
    TaskConfig,
)
from tiebreak.config.commands import command, in_quotes, quoted, reading, rendered_by, settings_of, train_with
from tiebreak.config.data import BUNDLED_PAIRS, DataConfig, SourceConfig
from tiebreak.config.describe import describe_config, dump_config
from tiebreak.config.distributed import DistributedConfig
from tiebreak.config.gate import MEASURES, GateConfig, GateRule
from tiebreak.config.judges import (
    DataJudge,
    JudgeConfig,
    ModelJudge,
    PeopleJudge,
    RewardModelJudge,
    RuleJudge,
    SelfJudge,
    ServerJudge,
)
from tiebreak.config.loading import (
    build_config,
    load_config,
    load_data,
    load_judge,
    load_reading,
    with_output_dir,
    with_whole_paths,
)
from tiebreak.config.losses import LossConfig
from tiebreak.config.moved import names_a_moved_model
from tiebreak.config.quantization import QuantizationConfig
from tiebreak.config.rounds import PairingConfig, Rounds, RoundsConfig, SamplingConfig, ServedConfig, load_rounds
from tiebreak.config.section import Section
from tiebreak.config.settings import (
    BUNDLED_MODEL,
    Config,
    EvaluationConfig,
    ModelConfig,
    MovesConfig,
    OutputConfig,
    ReferenceConfig,
    RuleConfig,
    TrainingConfig,
    leaves,
    warnings_of,
)
from tiebreak.config.signals import HELDOUT, KL_SIGNALS, SAMPLED, SIGNALS, SignalsConfig
from tiebreak.config.stages import Stage, load_stages
from tiebreak.config.stopping import StoppingConfig, StopRule
from tiebreak.config.sweep import Between, Sweep, SweepConfig, load_sweep, shared_endings

__all__ = [
    "BUNDLED_MODEL",
    "BUNDLED_PAIRS",
    "HELDOUT",
    "KL_SIGNALS",
    "MEASURES",
    "SAMPLED",
    "SIGNALS",
    "AdapterConfig",
    "Between",
    "Compliance",
    "Config",
    "DataConfig",
    "DataJudge",
    "DistributedConfig",
    "EvaluationConfig",
    "ExactAnswer",
    "GateConfig",
    "GateRule",
    "JudgeConfig",
    "LmEvalConfig",
    "LossConfig",
    "ModelConfig",
    "ModelJudge",
    "MovesConfig",
    "MultipleChoice",
    "OutputConfig",
    "PairingConfig",
    "PeopleJudge",
    "PlainText",
    "QuantizationConfig",
    "ReferenceConfig",
    "Refusal",
    "RewardModelJudge",
    "Rounds",
    "RoundsConfig",
    "RuleConfig",
    "RuleJudge",
    "SamplingConfig",
    "Section",
    "SelfJudge",
    "ServedConfig",
    "ServerJudge",
    "SignalsConfig",
    "SourceConfig",
    "Stage",
    "StopRule",
    "StoppingConfig",
    "Sweep",
    "SweepConfig",
    "TaskConfig",
    "TrainingConfig",
    "build_config",
    "command",
    "describe_config",
    "dump_config",
    "in_quotes",
    "leaves",
    "load_config",
    "load_data",
    "load_judge",
    "load_reading",
    "load_rounds",
    "load_stages",
    "load_sweep",
    "names_a_moved_model",
    "quoted",
    "reading",
    "rendered_by",
    "settings_of",
    "shared_endings",
    "train_with",
    "warnings_of",
    "with_output_dir",
    "with_whole_paths",
]
