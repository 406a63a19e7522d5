"""The ACL of new objects, for as long as their bucket takes it."""

import logging
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from ..errors import StorageError

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class OptionalACL:
    """What is known of a bucket: whether it takes ACLs.

    :param bucket: the name of the bucket, for the log.
    :param refuses: returns whether an error means that a request failed only because of its ACL.
    :param by_key: whether a policy may refuse the ACL of single keys. Once the bucket has taken an
        ACL, a refusal then says nothing about other keys.
    """

    def __init__(self, bucket: str, refuses: Callable[[StorageError], bool], by_key: bool = False):
        self._bucket = bucket
        self._refuses = refuses
        self._by_key = by_key
        self._is_taken: bool | None = None  # unknown
        self._lock = Lock()

    def send(self, acl: str | None, send: Callable[[str | None], Result]) -> Result:
        """Send a request that makes an object, and return its result. If the bucket refuses the
        ACL, the request is sent without it, and so are all later ones.

        :param acl: the name of the ACL; None or an empty text for none.
        :param send: sends the request with that ACL, or with None.
        """
        if not acl or self._is_taken is False:
            return send(None)
        try:
            result = send(acl)
        except StorageError as error:
            if not self._refuses(error):
                raise
            result, reason = send(None), error
        else:
            if self._by_key:
                self._is_taken = True
            return result
        with self._lock:
            is_new, self._is_taken = self._is_taken is None, self._is_taken or False
        if is_new:
            logger.warning(
                "The bucket %s refuses the ACL %s: files are stored without the ACL: %s",
                *(self._bucket, acl, reason),
            )
        return result
