"""python -m otibayes.cli"""

from . import main

main()
