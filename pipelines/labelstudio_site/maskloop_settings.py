"""Settings of Label Studio: its own, with middlewares for requests, logins, objects, writes, exports, and tasks.

This module runs in Label Studio's environment, not in Maskloop's.
"""

# In two steps, because the second module asks Django for settings of the first while it is read.
from core.settings import base
from maskloop_atomic import wait_for_writers

globals().update({name: getattr(base, name) for name in dir(base) if name.isupper()})

from core.settings import label_studio  # noqa: E402  # only now: it asks Django for the settings above

globals().update({name: getattr(label_studio, name) for name in dir(label_studio) if name.isupper()})
MIDDLEWARE = [
    "maskloop_log.RequestLog",
    "maskloop_login_limit.LoginRateLimit",
    "maskloop_storage.SandboxedObjects",  # before Label Studio's, whose policy it replaces
    *label_studio.MIDDLEWARE,
    "maskloop_atomic.StoreOnce",
    "maskloop_next_task.SerializeNextTask",
    "maskloop_storage.StoragePrefixes",
    "maskloop_exports.NoExportCopies",
    "maskloop_report.ProgressReport",  # before the last, which answers everything else below /maskloop/
    "maskloop_own_account.OwnAccount",
    "maskloop_page.PageAdditions",
]
DATABASES = wait_for_writers(label_studio.DATABASES)
