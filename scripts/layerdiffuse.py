"""Entry of the WebUI extension: the WebUI finds its classes here."""

import logging

from lib_layerdiffuse.webui.host.modules import why_not_here

if why_not_here():
    logging.getLogger("LayerDiffuse").error(why_not_here())
else:
    from lib_layerdiffuse.webui.callbacks import register
    from lib_layerdiffuse.webui.saving.extras import KeepTransparency  # noqa: F401
    from lib_layerdiffuse.webui.script import LayerDiffuseScript  # noqa: F401

    register()
