"""Entry of the WebUI extension: the WebUI finds its classes here."""

from lib_layerdiffuse.webui.callbacks import register
from lib_layerdiffuse.webui.extras import KeepTransparency  # noqa: F401
from lib_layerdiffuse.webui.script import LayerDiffuseScript  # noqa: F401

register()
