package s3sink

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/s3sink/s3sink/internal/barrier"
)

// hint tells a person what to change. The status has chosen the documented
// message, which is coarse; what AWS said tells more. Codes come first, and the
// text of a denial only then: AWS names the action in it, but does not promise
// to.
func (v *validation) hint(e *ValidationError) string {
	if text := v.noAnswer(e); text != "" {
		return text
	}
	if e.Step == StepPutObject || e.Step == StepRegion {
		return v.storeHint(e)
	}
	return v.roleHint(e)
}

// noAnswer is the hint for what failed on the way.
func (v *validation) noAnswer(e *ValidationError) string {
	var certificate *tls.CertificateVerificationError
	var foreign *barrier.Panic
	switch {
	case errors.As(e.Err, &foreign):
		return "Code that the sink calls panicked: the AWS SDK, Config.HTTPClient, Config.AWS or a credentials provider. Its stack is in the log of Config.Logger."
	case e.AWSCode == "NotImplemented", isKMS(e.AWSCode):
		return ""
	case e.Status >= 500, e.Status == 429, isBusy(e.AWSCode):
		return "The service is busy or has a fault of its own. Validate again."
	case e.Status != 0 || e.Err == nil || errors.Is(e.Err, errNotRequired):
		return ""
	case errors.As(e.Err, &certificate):
		return "The server's certificate is not trusted. If it is the right server, name its authority in AWS_CA_BUNDLE, or set Config.HTTPClient."
	case e.Step == StepCredentials && !v.isRole():
		return "No credentials were found. Set Config.Credentials, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where there is an instance or container role."
	case e.Step == StepCredentials:
		return "No credentials were found to assume the role with, or STS was not reached with them. Set them with Via, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where there is an instance or container role."
	case e.Step == StepRegion:
		return "S3 did not answer, or did not name the bucket's region. Set Config.Region, or check the network and proxies."
	case e.Step == StepPutObject:
		return fmt.Sprintf("S3 did not answer. Check the network, proxies, Config.Region (%q) and Config.Endpoint (%q).", v.report.Region, v.sink.cfg.Endpoint)
	}
	return fmt.Sprintf("STS did not answer. Check the network, proxies, Config.STSRegion (%q) and Config.STSEndpoint (%q).", v.stsRegion(), v.sink.cfg.STSEndpoint)
}

// roleHint is about credentials and roles.
func (v *validation) roleHint(e *ValidationError) string {
	r, _ := v.sink.cfg.Credentials.(role)
	if refusesPolicy(e.AWSCode) {
		return "STS does not take the session policy: it is too large, because of session tags or a long prefix, or this STS is not AWS's and does not know the condition kms:ViaService. Use WithoutSessionPolicy, or SSES3, with which the policy has no such condition."
	}
	switch e.AWSCode {
	case "RegionDisabledException":
		return fmt.Sprintf("STS is not activated in region %s for the account of the role. Activate it there (IAM, Account settings, Security Token Service), or set Config.STSRegion to a region where it is active. The external id is not the problem.", v.stsRegion())
	case "InvalidClientTokenId", "InvalidAccessKeyId", "UnrecognizedClientException":
		return fmt.Sprintf("AWS does not know the access key of the %s: it was deleted or is of another partition, or the region is one that its account has not opted into. The role is not the problem.", base(r))
	case "SignatureDoesNotMatch", "IncompleteSignature":
		return fmt.Sprintf("The secret of the %s is not the one of its access key, or the clock of this host is off by more than 15 minutes. The role is not the problem.", base(r))
	case "ExpiredToken", "ExpiredTokenException":
		return fmt.Sprintf("The session of the %s has ended. Get a new one. The role is not the problem.", base(r))
	case "RequestTimeTooSkewed", "RequestExpired":
		return "The clock of this host is more than 15 minutes off. Set it. The role is not the problem."
	case "OptInRequired":
		return fmt.Sprintf("The account of the %s has not opted into region %s. Enable it, or set Config.STSRegion to one where it is active. The role is not the problem.", base(r), v.stsRegion())
	case "ValidationError":
		return fmt.Sprintf("STS does not take the request: look at the role's ARN %s, and at its maximum session duration if WithDuration is used.", r.arn)
	}
	switch e.Code {
	case CodeExternalIDNotRequired:
		return fmt.Sprintf("Add to the trust policy of %s, in its statement for the caller: \"Condition\": {\"StringEquals\": {\"sts:ExternalId\": %q}}. A change takes some seconds to be known everywhere.", r.arn, r.externalID)
	case CodeExternalIDRejected:
		return v.refusedHint(r)
	case CodeIntermediateRole:
		return fmt.Sprintf("The %s cannot be used: look at the intermediate role's trust policy and at the credentials that assume it. The role that writes is not the problem.", base(r))
	}
	return "STS did not say more than that."
}

// refusedHint lists what STS answers alike.
func (v *validation) refusedHint(r role) string {
	caller := "the caller"
	for _, step := range v.report.Steps {
		if step.Name == StepCredentials && step.As != "" {
			caller = step.As
		}
	}
	id := "without an external id: if the role demands one, set it"
	if r.externalID != "" {
		id = fmt.Sprintf("with external id %q", r.externalID)
	}
	return fmt.Sprintf("STS answers alike if the role does not exist, its trust policy does not name %s, the external id differs, or the caller itself may not sts:AssumeRole. %s was asked for %s.",
		caller, r.arn, id)
}

// storeHint is about the bucket.
func (v *validation) storeHint(e *ValidationError) string {
	switch e.AWSCode {
	case "AccessDenied", "Forbidden":
		if e.Step == StepRegion { // who asks for a region needs no permission
			return "S3 did not name the bucket's region. Set Config.Region."
		}
		return v.deniedHint(e)
	case "NoSuchBucket", "NotFound":
		return fmt.Sprintf("There is no bucket %s. Create it, or correct Config.Bucket.", v.report.Bucket)
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "MovedPermanently":
		return v.regionHint(e)
	case "InvalidAccessKeyId":
		return "AWS does not know the access key. Check Config.Credentials."
	case "SignatureDoesNotMatch":
		return "The secret is not the one of the access key. Check Config.Credentials."
	case "RequestTimeTooSkewed", "RequestExpired":
		return "The clock of this host is more than 15 minutes off. Set it."
	case "ExpiredToken":
		return "The session has ended. Get a new one."
	case "InvalidToken", "InvalidTokenId":
		return "S3 does not take the session's token. In a region that is opt-in, sessions of the global STS are not valid: set Config.STSRegion to the bucket's region."
	case "AllAccessDisabled", "AccountProblem":
		return "AWS has disabled the account or the bucket. Ask its owner."
	case "AccessControlListNotSupported":
		return "The bucket takes no ACLs (Object Ownership: bucket owner enforced). Leave Config.ACL empty."
	case "InvalidBucketName":
		return "Correct Config.Bucket: S3 does not take the name."
	case "InvalidStorageClass":
		return "Correct Config.StorageClass: the store does not have it."
	case "NotImplemented", "InvalidArgument", "InvalidRequest", "InvalidEncryptionAlgorithmError", "MalformedXML", "MethodNotAllowed":
		return "The store does not take the request as it is configured. Look at Config.Encryption, ACL, StorageClass, Tags and CreateOnly."
	case "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return "The object was changed on its way. Look for a proxy between this host and the store."
	}
	if isKMS(e.AWSCode) {
		return v.keyHint(strings.ToLower(e.AWSCode)[len("kms."):])
	}
	if e.Status == 403 {
		return v.deniedHint(e)
	}
	return "S3 did not say more than that."
}

// What the text of a denial names, if AWS is in the mood to tell:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
var (
	deniedAction = regexp.MustCompile(`perform: ([a-z0-9]+:[A-Za-z]+)`)
	deniedKey    = regexp.MustCompile(`arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[0-9A-Za-z-]+`)
	denyingOne   = regexp.MustCompile(`explicit deny in an? ([A-Za-z -]+(?:policy|boundary))`)
)

// named returns what the pattern's last group finds in text, or "".
func named(pattern *regexp.Regexp, text string) string {
	found := pattern.FindStringSubmatch(text)
	if found == nil {
		return ""
	}
	return found[len(found)-1]
}

// deniedHint finds the permission that is missing.
func (v *validation) deniedHint(e *ValidationError) string {
	text := e.AWSMessage
	cfg := &v.sink.cfg
	var hint string
	switch {
	case strings.Contains(text, "explicit deny"):
		return explicitDenyHint(text)
	case strings.Contains(text, "kms:"):
		return v.keyDeniedHint(text)
	case strings.Contains(text, "session policy"):
		if r, ok := cfg.Credentials.(role); ok && !r.unrestricted {
			return "The session policy that s3sink sends does not allow it, though the role may. Use WithoutSessionPolicy, and report it as a fault of s3sink."
		}
		hint = "The session of the credentials was cut down to less than its role allows, by whoever asked for it."
	case strings.Contains(text, "s3:PutObjectAcl"):
		hint = "Config.ACL needs s3:PutObjectAcl; leave it empty or allow it."
	case strings.Contains(text, "s3:PutObjectTagging"):
		hint = "Config.Tags need s3:PutObjectTagging; leave them empty or allow it."
	}
	owner := ""
	if cfg.ExpectedBucketOwner != "" {
		owner = fmt.Sprintf(" Or the bucket does not belong to account %s, as Config.ExpectedBucketOwner demands.", cfg.ExpectedBucketOwner)
	}
	kms := ""
	if cfg.Encryption.algorithm == "" {
		kms = " If the bucket encrypts with a KMS key, its use must be allowed too."
	}
	return strings.TrimSpace(fmt.Sprintf("%s Allow whoever writes: %s.%s%s", hint, cfg.policyFacts().AllowPut(), kms, owner))
}

// explicitDenyHint says which policy to look at.
func explicitDenyHint(text string) string {
	action := cmp.Or(named(deniedAction, text), "it")
	where := "the bucket policy (for example one that demands a server-side encryption header, TLS or a network), in the role's permissions boundary and in the organization's policies"
	switch policy := named(denyingOne, text); policy {
	case "":
	case "resource-based policy":
		where = "the bucket policy (for example one that demands a server-side encryption header, TLS or a network)"
		if strings.HasPrefix(action, "kms:") {
			where = "the policy of the KMS key"
		}
	case "session policy":
		where = "the session policy of the credentials"
	case "service control policy", "resource control policy":
		where = "the organization's policies (a " + policy + ")"
	default: // identity-based policy, permissions boundary, VPC endpoint policy
		where = "the " + policy + " of whoever writes"
		if strings.HasPrefix(policy, "VPC") {
			where = "the VPC endpoint policy of the network"
		}
	}
	return fmt.Sprintf("A policy denies %s explicitly, and no permission helps against that: look for Deny in %s.", action, where)
}

// keyDeniedHint names the action and the key, as far as AWS does.
func (v *validation) keyDeniedHint(text string) string {
	use := v.sink.cfg.policyFacts().AllowUseOfKey()
	if action := named(deniedAction, text); strings.HasPrefix(action, "kms:") && !slices.Contains(use.Action, action) {
		use.Action = append(use.Action, action)
	}
	key := named(deniedKey, text)
	if key != "" {
		use.Resource = []string{key}
		key = " " + key
	}
	return fmt.Sprintf("Whoever writes may not use the KMS key%s. Both the role and, in another account, the key's policy (where Resource is \"*\") must have: %s", key, use)
}

func (v *validation) keyHint(code string) string {
	key := "The bucket's KMS key"
	if k := v.sink.cfg.Encryption.key; k != "" {
		key = "KMS key " + k
	}
	switch code {
	case "notfoundexception", "keynotfound":
		return key + " does not exist in the bucket's region. A key of another account must be given by its ARN."
	case "disabledexception":
		return key + " is disabled. Enable it."
	case "kmsinvalidstateexception":
		return key + " is waiting to be deleted or has no key material. Cancel the deletion, or use another one."
	case "invalidkeyusageexception", "invalidkeyusage":
		return key + " is not for encryption, or is asymmetric. S3 takes symmetric keys alone."
	}
	return key + " cannot be used. Look at its state and its policy."
}

func (v *validation) isRole() bool {
	_, ok := v.sink.cfg.Credentials.(role)
	return ok
}

func (v *validation) stsRegion() string { return v.sink.env(v.report.Region).stsRegion }

// base names the credentials that assume a role.
func base(r role) string {
	if r.base == nil {
		return "credentials"
	}
	return "credentials to assume the role with (" + r.base.String() + ")"
}

// isBusy holds for what AWS also says under 400.
func isBusy(code string) bool {
	switch code {
	case "Throttling", "ThrottlingException", "RequestThrottled", "SlowDown", "RequestTimeout", "InternalError":
		return true
	}
	return false
}

func isKMS(code string) bool {
	return strings.HasPrefix(code, "KMS.") || strings.HasPrefix(code, "kms:") // the latter is MinIO's
}

// expectedRegion is where AuthorizationHeaderMalformed names the right one.
var expectedRegion = regexp.MustCompile(`expecting ['"]([a-z0-9-]+)['"]`)

// regionHint names the bucket's region, if S3 did.
func (v *validation) regionHint(e *ValidationError) string {
	region := named(expectedRegion, e.AWSMessage)
	if _, found, ok := strings.Cut(e.Err.Error(), "the bucket is in "); ok {
		region, _, _ = strings.Cut(found, ", not in ")
	}
	if region == "" {
		return fmt.Sprintf("The bucket is in another region than %s, and S3 did not name it. Correct Config.Region; with AWS it can be left empty.", v.report.Region)
	}
	return fmt.Sprintf("The bucket is in %s, not in %s. Correct Config.Region; with AWS it can be left empty.", region, v.report.Region)
}
