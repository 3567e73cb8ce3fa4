"""What a machine without gateways needs: simulated and real OpenClaw gateways, Postgres and Valkey, and the
two commands that use them, `provisioner demo` and `provisioner serve`.

The lab may import the product; the product never imports the lab, whose commands worker/cli/app.py loads by
name. Its dependencies come with the extra ``[lab]``; the image contains neither them nor the lab.
"""
