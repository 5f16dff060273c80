"""
Codes of AWS's errors: the kind of ours that each is, and what an operator can do about it. Data; no SDK.
"""

from typing import Final

from shared.errors import (
    BusyError,
    ConflictError,
    CredentialsError,
    DeniedError,
    InvalidError,
    MillraceError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)

CODES: Final[dict[type[MillraceError], str]] = {
    CredentialsError: """InvalidAccessKeyId InvalidAccessKeyIdException SignatureDoesNotMatch InvalidSignatureException
        UnrecognizedClientException InvalidClientTokenId InvalidToken ExpiredToken ExpiredTokenException
        TokenRefreshRequired MissingAuthenticationToken MissingAuthenticationTokenException IncompleteSignature
        IncompleteSignatureException AuthFailure RequestTimeTooSkewed RequestExpired InvalidSecurity
        ExpiredIdentityToken""",
    DeniedError: """AccessDenied AccessDeniedException AuthorizationError UnauthorizedOperation AllAccessDisabled
        AccountProblem OptInRequired KMSAccessDeniedException KMSDisabledException KMSInvalidStateException
        KMSNotFoundException KMSOptInRequired KMS.DisabledException KMS.KMSInvalidStateException
        KMS.NotFoundException NotAuthorized NotSignedUp UnauthorizedAccess InvalidPayer""",
    NotFoundError: "NoSuchBucket NoSuchKey NoSuchUpload NoSuchEntity NoSuchVersion NotFound ResourceNotFoundException",
    BusyError: """SlowDown Throttling ThrottlingException ThrottledException RequestLimitExceeded RequestThrottled
        RequestThrottledException ProvisionedThroughputExceeded ProvisionedThroughputExceededException LimitExceeded
        LimitExceededException TooManyRequestsException KMSThrottling KMSThrottlingException BandwidthLimitExceeded
        PriorRequestNotComplete OperationAborted ConditionalRequestConflict""",
    UnavailableError: """InternalError InternalFailure InternalFailureException InternalServerError ServiceUnavailable
        ServiceUnavailableException RequestTimeout RequestTimeoutException RequestAbortedException
        MalformedHttpRequestException BadDigest IncompleteBody XAmzContentSHA256Mismatch IDPCommunicationError""",
    ConflictError: """PreconditionFailed BucketAlreadyExists BucketAlreadyOwnedByYou ResourceInUseException
        ResourceExistsException""",
    TooLargeError: """EntityTooLarge MaxMessageLengthExceeded MetadataTooLarge KeyTooLongError RequestEntityTooLarge
        RequestEntityTooLargeException RequestHeaderSectionTooLarge""",
    InvalidError: """InvalidArgument InvalidArgumentException InvalidParameterValue ValidationError ValidationException
        InvalidBucketName InvalidRequest MalformedXML MalformedPolicyDocument AuthorizationHeaderMalformed
        PermanentRedirect TemporaryRedirect IllegalLocationConstraintException AccessControlListNotSupported
        NotImplemented RegionDisabledException MethodNotAllowed UnknownOperationException InvalidAction MissingAction
        MalformedQueryString InvalidDigest InvalidLocationConstraint InvalidObjectState""",
}
"""The kind of each code that S3, Kinesis, KMS and STS answer, and of those inside a PutRecords reply."""

ENDED_KEYS: Final = frozenset(
    [
        "ExpiredToken",
        "ExpiredTokenException",
        "TokenRefreshRequired",
        "InvalidToken",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "UnrecognizedClientException",
    ]
)
"""Codes that a role's keys get which have ended before their time: the role may give new ones."""

DENIED_KEYS: Final = frozenset(["AccessDenied", "AccessDeniedException"])
"""
Codes that the keys of a session of a role get once an administrator has revoked the sessions up to that moment: a
policy denies them everything, and a new session works (IAM user guide, Revoke IAM role temporary security credentials).
"""
REVOKED_AFTER_S: Final = 300.0
"""Age of keys from which on a denial may be a revoked session. A role that may not do a thing is so asked seldom."""

_KINDS: Final = {code: kind for kind, codes in CODES.items() for code in codes.split()}

CLOCK_HINT: Final = "The clock of this machine is off by some minutes: let it follow a time server."
CLOCK_WORDS: Final = ("Signature expired", "Signature not yet current")
"""Beginnings of the sentence with which AWS refuses a time under the code of a wrong signature (IAM user guide)."""

HINTS: Final[dict[str, str]] = {
    "InvalidAccessKeyId": "The access key id does not exist: a typo, deleted, or of another partition.",
    "UnrecognizedClientException": "The access key id does not exist: a typo, deleted, or of another partition.",
    "InvalidClientTokenId": "The access key id does not exist: a typo, deleted, or of another partition.",
    "SignatureDoesNotMatch": "The secret key does not belong to this access key id. Look for a space copied along.",
    "InvalidSignatureException": "The secret key does not belong to this access key id. Look for a space copied along.",
    "ExpiredToken": "The temporary keys have expired.",
    "ExpiredTokenException": "The temporary keys have expired.",
    "AuthorizationHeaderMalformed": "The bucket is in another region than the one entered.",
    "PermanentRedirect": "The bucket is in another region than the one entered.",
    "IllegalLocationConstraintException": "The bucket is in another region than the one entered.",
    "NoSuchBucket": "The bucket does not exist.",
    "ResourceNotFoundException": "The stream does not exist in this region and account.",
    "AccessDenied": "The key is valid, but its policy, the bucket's policy or a KMS key does not allow this.",
    "AccessDeniedException": "The key is valid, but its policy does not allow this.",
    "AccessControlListNotSupported": "The bucket has ACLs disabled: do not ask for one.",
    "RequestTimeTooSkewed": CLOCK_HINT,
    "RequestExpired": CLOCK_HINT,
    "AllAccessDisabled": "AWS has suspended the account or the bucket.",
    "AccountProblem": "AWS has suspended the account or the bucket.",
    "InvalidBucketName": "This is no name that a bucket can have.",
    "KMS.DisabledException": "The KMS key is disabled.",
    "KMSDisabledException": "The KMS key is disabled.",
    "SlowDown": "The provider asks to slow down; nothing is wrong with the keys.",
    "InternalError": "The provider has trouble of its own; nothing is wrong with the keys.",
    "ServiceUnavailable": "The provider has trouble of its own; nothing is wrong with the keys.",
}
"""Remedies for an operator, by code."""

ASSUME_ROLE_HINTS: Final[dict[str, str]] = {
    "AccessDenied": (
        "The role does not exist, its trust policy does not name these keys or demands another external id, or the "
        "keys may not sts:AssumeRole."
    ),
    "ValidationError": "STS does not take this role_arn or this external_id.",
    "RegionDisabledException": "The account that owns the keys has STS switched off in this region.",
}
"""The same for an answer to `AssumeRole`, where codes have meanings of their own."""


def hint_for(code: str | None, operation: str | None = None, words: str | None = None) -> str | None:
    """Remedy for an operator, by the code and AWS's sentence in the answer to an operation such as `AssumeRole`."""
    if words is not None and words.startswith(CLOCK_WORDS):
        return CLOCK_HINT
    own = ASSUME_ROLE_HINTS if operation == "AssumeRole" else {}
    return own.get(code or "") or HINTS.get(code or "")


BY_STATUS: Final[dict[int, type[MillraceError]]] = {
    401: CredentialsError,
    403: DeniedError,
    404: NotFoundError,
    408: UnavailableError,
    409: ConflictError,
    412: ConflictError,
    413: TooLargeError,
    429: BusyError,
    501: InvalidError,
}


def kind_of(code: str | None, http_status: int | None) -> type[MillraceError]:
    """The kind of a code; of the status where there is no code, as in an answer to HEAD, or it is unknown."""
    if code in _KINDS:
        return _KINDS[code]
    if http_status is None:
        return UnavailableError
    return BY_STATUS.get(http_status, UnavailableError if http_status >= 500 else InvalidError)
