"""Why a job of the WebUI gave no alpha: it is run again by the WebUI itself, shorter, with one thing otherwise."""
