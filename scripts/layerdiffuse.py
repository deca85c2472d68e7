"""Entry of the WebUI extension."""

from lib_layerdiffuse.webui.callbacks import register
from lib_layerdiffuse.webui.script import LayerDiffuseScript  # noqa: F401 the WebUI finds the class here

register()
