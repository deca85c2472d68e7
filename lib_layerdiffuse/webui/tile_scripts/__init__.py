"""Alpha in the scripts of img2img that cut a picture into tiles and join them: SD upscale, the outpaintings."""
