"""What every launcher does around its work: parse flags, and turn a bad input into one sentence."""

import difflib
import functools
import importlib.util
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxdefect import train
from jaxdefect.models import ynnpack

# What is wrong with the input: a sentence of ours.
_SAID = (ValueError, OSError, FloatingPointError, ModuleNotFoundError)
# What XLA says, as an error of any kind: 'UNKNOWN: Gloo AllGather failed: ... reset by peer'.
_STATUS = re.compile(r'^[A-Z_]+: ')
CONFIGS = pathlib.Path(__file__).resolve().parent.parent / 'configs'
_CONFIG_OVERRIDE = re.compile(r'^--?config\.([\w.\[\]]+)(=|$)')


def run(define: Callable[[flags.FlagValues], None], main: Callable[[flags.FlagValues], None]):
  """Parses the command line and calls ``main``; exits with 2 and one sentence on bad input.

  Args:
    define: adds the launcher's flags to a ``FlagValues``.
    main: the launcher's work; a ``ValueError``, ``OSError`` or ``FloatingPointError`` (a run
      that diverged) becomes ``error: <sentence>``. JAXDEFECT_DEBUG=1 shows the traceback.
  """
  flags.FLAGS.mark_as_parsed()  # grain reads absl's global flags, which we do not use
  values = flags.FlagValues()
  define(values)
  debug = bool(os.environ.get('JAXDEFECT_DEBUG'))
  if {'--help', '-help', '-h'} & set(sys.argv[1:]):
    lines = [(sys.modules['__main__'].__doc__ or '').strip(), '', 'Flags:']
    for name in values:
      lines.append(f'  --{name}: {values[name].help} (default: {values[name].default})')
    print(as_installed('\n'.join(lines)))
    return
  try:
    prepare()
    _parse(define, values)
    main(values)
  except BrokenPipeError:  # whoever reads has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except Exception as error:
    together = jax.distributed.is_initialized()
    of_xla = isinstance(error, jax.errors.JaxRuntimeError) or _STATUS.match(str(error))
    if together and of_xla and not debug:
      print(' '.join(str(error).split()), file=sys.stderr)
      _fail(train.processes.LOST, code=1)
    if isinstance(error, _SAID) and not debug:
      _fail(str(error))
    if together:
      traceback.print_exc()
      train.processes.leave(1)  # the others would be waited for
    raise
  except KeyboardInterrupt as error:
    said = str(error) or 'interrupted'
    print(f'\n{said}; the same command goes on where this one stopped', file=sys.stderr)
    _leave(130)


def as_installed(text: str) -> str:
  """``launch.train`` is called ``jaxdefect train`` where there is no checkout."""
  in_wheel = (CONFIGS.parent / '__main__.py').is_file()  # inside of the package
  return re.sub(r'(python -m )?\blaunch\.(?=[a-z])', 'jaxdefect ', text) if in_wheel else text


def _fail(sentence: str, code: int = 2):
  print(f'error: {as_installed(" ".join(sentence.split()))}', file=sys.stderr)
  _leave(code)


def _leave(code: int):
  if jax.distributed.is_initialized():
    train.processes.leave(code)  # the others would be waited for
  sys.exit(code)


def prepare() -> None:
  """What a process does before JAX computes anything."""
  train.keep_freed_memory()
  ynnpack.leave_convolutions_to_eigen()
  remember_compilations()


def remember_compilations() -> None:
  """Keeps compiled programs between runs, unless JAX was told where (or not) to keep them."""
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    folder = os.path.join(os.path.expanduser('~'), '.cache', 'jaxdefect', 'compiled')
    jax.config.update('jax_compilation_cache_dir', folder)


def _parse(define: Callable, values: flags.FlagValues) -> None:
  _find_config()
  if _config_argument():
    load_config(_config_argument())  # its own errors are plainer than those of the flag
  try:
    rest = values(sys.argv)
  except flags.UnrecognizedFlagError as error:
    raise ValueError(
      f'unknown flag --{error.flagname}{_did_you_mean(error.flagname, values)}'
    ) from None
  except flags.Error as error:
    raise ValueError(str(error)) from None
  except (AttributeError, KeyError) as error:
    raise ValueError(_unknown_key() or str(error)) from None
  if len(rest) > 1:
    raise ValueError(f'unexpected argument {rest[1]!r}; flags are written --name=value')


def _find_config() -> None:
  """Makes a path of ``--config=NAME[:variant]``, where NAME is a file of configs/."""
  for place, argument in enumerate(sys.argv):
    flag, equals, name = argument.rpartition('=')
    if not equals and place:
      flag = sys.argv[place - 1]
    file, colon, variant = name.partition(':')
    path = CONFIGS / f'{file.removesuffix(".py")}.py'
    known = path.parent == CONFIGS and path.is_file() and not os.path.isfile(file)
    if flag in ('--config', '-config') and known:
      sys.argv[place] = f'{argument.removesuffix(name)}{path}{colon}{variant}'


def _config_argument() -> str:
  for place, argument in enumerate(sys.argv):
    if argument.startswith(('--config=', '-config=')):
      return argument.split('=', 1)[1]
    if argument in ('--config', '-config') and place + 1 < len(sys.argv):
      return sys.argv[place + 1]
  return ''


def _did_you_mean(name: str, known) -> str:
  close = difflib.get_close_matches(name, list(known), n=1)
  return f"; did you mean '{close[0]}'?" if close else ''


def _unknown_key() -> str:
  """Finds the override that names no key of the config, for a sentence about it."""
  path = _config_argument()
  if not path:
    return 'an override such as --config.x=v needs --config=FILE before it'
  keys = tuple(flatten(load_config(path)))
  parents = {key.rsplit('.', n)[0] for key in keys for n in range(1, key.count('.') + 1)}
  for argument in sys.argv[1:]:
    match = _CONFIG_OVERRIDE.match(argument)
    if match and match.group(1) not in keys and match.group(1) not in parents:
      name = match.group(1)
      hint = _did_you_mean(name, keys) or f' (it has {", ".join(keys)})'
      return f'the config {path} has no key {name!r}{hint}'
  return ''


def flatten(config: ConfigDict | dict, prefix: str = '') -> dict:
  """A nested config as ``{'data.dir': value, ...}``."""

  def walk(node, at: str) -> Iterator[tuple[str, object]]:
    for name in sorted(node):
      value = node.get_ref(name).get() if isinstance(node, ConfigDict) else node[name]
      if isinstance(value, ConfigDict | dict):
        yield from walk(value, f'{at}{name}.')
      else:
        yield f'{at}{name}', value

  return dict(walk(config, prefix))


def define_config(values: flags.FlagValues) -> None:
  """Adds ``--config=FILE[:variant]`` with ``--config.x=v`` overrides."""
  config_flags.DEFINE_config_file(
    'config',
    None,
    'a file of configs/, FILE or FILE:variant; --config.x=v overrides',
    flag_values=values,
  )


def define_processes(values: flags.FlagValues) -> None:
  """Adds the flags of a run on several processes; Slurm, Open MPI and Kubernetes need none."""
  define = functools.partial(flags.DEFINE_integer, flag_values=values)
  flags.DEFINE_string('coordinator', '', 'host:port of process 0 of several', flag_values=values)
  define('processes', 0, 'how many processes train together')
  define('process', -1, 'which of them this one is, from 0 on')


def define_false_alarm_rate(values: flags.FlagValues) -> None:
  """Adds ``--false_alarm_rate``: another threshold for an anomaly method, after training."""
  flags.DEFINE_float(
    'false_alarm_rate',
    None,
    'of an anomaly method: another share of good parts that may be flagged',
    flag_values=values,
  )


def load_config(path: str) -> ConfigDict:
  """Runs ``get_config`` of ``FILE`` or ``FILE:variant``."""
  file, _, variant = path.partition(':')
  if not os.path.isfile(file):
    hint = _did_you_mean(file, [one.stem for one in CONFIGS.glob('*_*.py')])
    raise ValueError(f'the config file {file!r} does not exist{hint}')
  spec = importlib.util.spec_from_file_location('config', file)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


def config(values: flags.FlagValues) -> ConfigDict:
  """The config that ``--config`` named, overrides applied."""
  if values.config is None:
    raise ValueError('--config=NAME is needed, for example --config=contrastive_margin_synthetic')
  return values.config


def config_name() -> str:
  """``classifier_neu-percent`` for ``--config=configs/classifier_neu.py:percent``."""
  path, _, variant = _config_argument().partition(':')
  stem = os.path.splitext(os.path.basename(path))[0]
  return f'{stem}-{variant}' if variant else stem


def require(values: flags.FlagValues, *names: str) -> None:
  """Refuses to go on without these flags."""
  for name in names:
    if not values[name].value:
      raise ValueError(f'--{name} is needed: {values[name].help}')
