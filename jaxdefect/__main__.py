"""The command line: ``jaxdefect train --config=...`` is ``python -m launch.train --config=...``.

In a checkout the launchers lie beside this package, in an installed one inside of it.
"""

import ast
import difflib
import importlib.util
import os
import pathlib
import runpy
import sys
import textwrap


def main() -> None:
  """Runs the launcher that the first argument names; without one, lists them and the configs."""
  package = pathlib.Path(__file__).resolve().parent
  root = package if (package / 'launch').is_dir() else package.parent
  verbs = launchers(root / 'launch')
  verb = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if verb in ('--help', '-help', '-h'):
    try:
      print(_usage(verbs, root / 'configs'), flush=True)
    except BrokenPipeError:  # whoever reads has seen enough
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return
  if verb not in verbs:
    close = difflib.get_close_matches(verb, verbs, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else f' (there are {", ".join(verbs)})'
    print(f'error: there is no verb {verb!r}{hint}', file=sys.stderr)
    sys.exit(2)
  # At the end of the path, so that no room of ours hides a package of somebody else's ...
  sys.path.append(str(root))
  found = importlib.util.find_spec('launch')
  if found is None or pathlib.Path(found.origin or '').parent != root / 'launch':
    sys.path.insert(0, str(root))  # ... unless another package has this very name.
  sys.argv = [f'jaxdefect {verb}', *sys.argv[2:]]
  runpy.run_module(f'launch.{verb}', run_name='__main__', alter_sys=True)


def _usage(verbs: dict[str, str], configs: pathlib.Path) -> str:
  names = sorted(path.stem for path in configs.glob('[a-z]*_*.py'))
  listed = textwrap.fill(', '.join(names), 98, initial_indent='  ', subsequent_indent='  ')
  lines = [f'  {name:15} {summary}' for name, summary in verbs.items()]
  first = 'usage: jaxdefect VERB [flags]; jaxdefect VERB --help has the flags'
  then = 'configs, for example jaxdefect train --config=contrastive_margin_synthetic:'
  return '\n'.join([first, '', *lines, '', then, '', listed])


def launchers(folder: pathlib.Path) -> dict[str, str]:
  """The modules of a folder that can be run, and the first sentence of each.

  Args:
    folder: of the launchers.

  Returns:
    Name -> sentence, by name.
  """
  found = {}
  for path in sorted(folder.glob('*.py')):
    text = path.read_text()
    if "__name__ == '__main__'" in text:
      first = (ast.get_docstring(ast.parse(text)) or '').partition('\n')[0]
      found[path.stem] = first.partition(': python -m')[0].rstrip('.')
  return found


if __name__ == '__main__':
  main()
