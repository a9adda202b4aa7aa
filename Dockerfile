# docker build -t pneumonia-detection .
#
# docker run --rm -it --gpus all --ipc=host \
#     -v /path/to/the/data:/data -v "$PWD/output:/output" -v "$PWD/weights:/weights" \
#     pneumonia-detection python src/train_runner.py --help
#
# --ipc=host (or --shm-size=8g): the data loader's workers pass batches through shared memory, of
# which a container has 64 MB by default. Needs the NVIDIA driver 580 or newer and the NVIDIA
# Container Toolkit; leave --gpus out to run on the CPU. The mounted output and weights folders
# have to be writable for user 1000; where yours is another one, add --user "$(id -u):$(id -g)".

# "base": PyTorch's wheels bring the libraries of CUDA 13.0 with them. Ubuntu 24.04 has Python 3.12.
FROM nvidia/cuda:13.0.2-base-ubuntu24.04

# A venv, for Ubuntu's own Python refuses pip (PEP 668).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv

# PYTHON tells create_env.sh and the scripts to use this interpreter and to set nothing up. HOME
# and USER serve a --user that the image does not know: caches need a place, torch.compile a name.
ENV PYTHON=/opt/venv/bin/python \
    PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=user \
    PNEUMONIA_DATA_DIR=/data \
    PNEUMONIA_OUTPUT_DIR=/output \
    PNEUMONIA_WEIGHTS_DIR=/weights

# Before the code, so that a change of code does not install everything again.
COPY requirements.txt /app/
RUN pip install --no-cache-dir --requirement /app/requirements.txt

WORKDIR /app
COPY . .

# The base image's own ordinary user.
RUN mkdir /data /output /weights && chown 1000:1000 /data /output /weights
VOLUME ["/data", "/output", "/weights"]
USER 1000
CMD ["python", "src/train_runner.py", "--help"]
