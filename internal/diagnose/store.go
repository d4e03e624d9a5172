package diagnose

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/s3sink/s3sink/policy"
)

// store returns advice on an answer of S3, or of a store with the same protocol.
func (c *diagnosis) store() Advice {
	s := &c.Settings
	if isKMS(c.Answer.Code) && !strings.HasSuffix(c.Answer.Code, "AccessDeniedException") {
		return c.keyState(strings.ToLower(c.Answer.Code)[len("kms."):])
	}
	switch c.Answer.Code {
	case "NoSuchBucket", "NotFound":
		return Advice{Kind: NoBucket,
			Says: fmt.Sprintf("There is no bucket %s.", s.Bucket),
			Fix:  "Create it, or correct Config.Bucket." + c.endpointNote()}
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "MovedPermanently", "Redirect":
		return c.region()
	case "InvalidAccessKeyId":
		if s.Endpoint != "" && s.Encryption == "aws:kms" {
			return Advice{Kind: UnknownKey,
				Says: fmt.Sprintf("The store does not know the access key, or it does not know the KMS key %s: Ceph gives the same answer for both.", clean(s.KMSKey)),
				Fix:  "Check Config.Credentials, and the key id of SSEKMS in the store's KMS."}
		}
		return Advice{Kind: UnknownKey,
			Says: fmt.Sprintf("%s does not know the access key.", c.who()),
			Fix:  "Check Config.Credentials: the key was deleted, or is of another partition or store." + c.endpointNote()}
	case "SignatureDoesNotMatch", "InvalidSecurity":
		return Advice{Kind: WrongSecret,
			Says: "The secret is not the one of the access key, or a proxy changes requests.",
			Fix:  "Check Config.Credentials; look for a lost character or white space at the end of the secret."}
	case "ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException":
		return Advice{Kind: EndedSession, Says: "The session has ended.", Fix: "Get a new session, or use credentials that renew themselves."}
	case "InvalidToken", "InvalidTokenId":
		a := Advice{Kind: InvalidToken, Says: fmt.Sprintf("%s does not accept the session's token.", c.who())}
		if s.Endpoint != "" {
			a.Fix = "Get a new session from the STS of this store, and set all three of its parts."
			return a
		}
		a.Says += " In a region that is opt-in, sessions of the global STS are not valid."
		a.Fix = "Set Config.STSRegion to the bucket's region, or get a new session and set all three of its parts."
		return a
	case "AccessControlListNotSupported":
		return Advice{Kind: BucketACL,
			Says: fmt.Sprintf("The bucket accepts no ACLs (Object Ownership: bucket owner enforced), and Config.ACL is %q.", s.ACL),
			Fix:  "Leave Config.ACL empty: the bucket's owner owns every object."}
	case "InvalidBucketName":
		return setting("S3 does not accept the name of the bucket.", "Correct Config.Bucket.")
	case "InvalidStorageClass":
		return setting("The store does not have the storage class.", "Correct Config.StorageClass, or leave it empty.")
	case "InvalidTag", "BadRequest", "TooManyTags":
		if c.Answer.Code == "BadRequest" && !s.Tags {
			break
		}
		return setting("S3 does not accept a tag: its key or value has a character, a length or a prefix (aws:) that is not allowed, or there are more than 10.", "Correct Config.Tags.")
	case "MetadataTooLarge":
		return setting("The metadata of objects is larger than 2 KB.", "Shorten Config.Metadata: names and values count together.")
	case "KeyTooLongError":
		return setting("The key is longer than 1024 bytes.", "Shorten Config.Prefix, Config.KeyFormat or the source id.")
	case "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return Advice{Kind: Integrity,
			Says: "The object was changed on its way.",
			Fix:  "Look for a proxy between this host and the store that rewrites bodies or headers."}
	case "InvalidArgument", "InvalidRequest", "InvalidEncryptionAlgorithmError", "MalformedXML", "MethodNotAllowed", "NotImplemented",
		"ServerSideEncryptionConfigurationNotFoundError", "InvalidEncryptionAlgorithm":
		return c.notAccepted()
	case "PreconditionFailed", "ConditionalRequestConflict":
		return setting("The store refused a condition of the request.", "Set Config.CreateOnly to CreateOnlyOff.")
	}
	switch {
	case c.Step == Region:
		return Advice{Kind: WrongRegion, Says: "S3 did not name the bucket's region.", Fix: "Set Config.Region." + c.endpointNote()}
	case c.Answer.Status == 403, c.Answer.Status == 401, strings.HasSuffix(c.Answer.Code, "AccessDeniedException"), c.Answer.Code == "AccessDenied":
		return c.putDenied()
	}
	return Advice{Kind: Unknown,
		Says: fmt.Sprintf("%s does not say more than its code and its words.", c.who()),
		Fix:  "Read its answer above, and check " + strings.Join(append([]string{"Config.Bucket"}, c.sent()...), ", ") + "."}
}

func setting(says, fix string) Advice { return Advice{Kind: Setting, Says: says, Fix: fix} }

// sent lists the settings that change the upload request and are set, with their
// values.
func (c *diagnosis) sent() []string {
	s := &c.Settings
	var all []string
	switch s.Encryption {
	case "AES256":
		all = append(all, "Config.Encryption (SSES3: x-amz-server-side-encryption: AES256)")
	case "aws:kms":
		all = append(all, fmt.Sprintf("Config.Encryption (SSEKMS: aws:kms with key %s)", clean(s.KMSKey)))
	}
	if s.KMSContext {
		all = append(all, "its encryption context")
	}
	if s.ACL != "" {
		all = append(all, fmt.Sprintf("Config.ACL (%q)", s.ACL))
	}
	if s.StorageClass != "" {
		all = append(all, fmt.Sprintf("Config.StorageClass (%q)", clean(s.StorageClass)))
	}
	if s.Tags {
		all = append(all, "Config.Tags")
	}
	if s.Metadata {
		all = append(all, "Config.Metadata")
	}
	if s.ExpectedOwner != "" {
		all = append(all, fmt.Sprintf("Config.ExpectedBucketOwner (%s)", s.ExpectedOwner))
	}
	return all
}

// notAccepted returns advice on a request that the store does not support.
func (c *diagnosis) notAccepted() Advice {
	a := setting("The store does not accept the request as it is configured.", "")
	if c.Settings.Endpoint != "" && c.Answer.Code == "InvalidArgument" && c.Answer.Status == 400 && (len(c.Settings.Roles) > 0 || c.Settings.Ambient) {
		a.Says += " Ceph answers a session token that it does not know like this, too."
	}
	if sent := c.sent(); len(sent) > 0 {
		a.Fix = "Remove or change one of " + strings.Join(sent, ", ") + "."
		return a
	}
	a.Fix = "Check Config.Bucket and Config.Prefix; no other setting changes the request." + c.endpointNote()
	return a
}

// expectedRegion matches the bucket's region in the message of
// AuthorizationHeaderMalformed.
var expectedRegion = regexp.MustCompile(`expecting ['"]([a-z0-9-]{1,40})['"]`)

func (c *diagnosis) region() Advice {
	region := c.Answer.Region
	if region == "" {
		region = group(expectedRegion, c.Answer.Message)
	}
	a := Advice{Kind: WrongRegion}
	emptyWorks := "; with AWS it can be left empty"
	if c.Settings.Endpoint != "" {
		emptyWorks = ""
	}
	if region == "" {
		a.Says = fmt.Sprintf("The bucket is in another region than %s, and S3 did not name it.", orWords(c.Settings.Region, "the one that was asked"))
		a.Fix = "Correct Config.Region" + emptyWorks + "." + c.endpointNote()
		return a
	}
	a.Says = fmt.Sprintf("The bucket is in %s, not in %s.", region, orWords(c.Settings.Region, "the region that was asked"))
	a.Fix = fmt.Sprintf("Correct Config.Region to %q%s.", region, emptyWorks)
	return a
}

// keyState returns advice on a KMS key that no identity can use.
func (c *diagnosis) keyState(code string) Advice {
	key := "The bucket's KMS key"
	if k := c.Settings.KMSKey; k != "" {
		key = "KMS key " + clean(k)
	}
	a := Advice{Kind: KeyState}
	switch code {
	case "notfoundexception", "keynotfound", "keynotfoundexception":
		a.Says = key + " does not exist in the bucket's region."
		a.Fix = "Use a key of that region. A key of another account must be given by its ARN, and must not be an AWS managed key (aws/s3)."
		if region := arnPart(c.Settings.KMSKey, 3); region != "" && c.Settings.Region != "" && region != c.Settings.Region {
			a.Fix = fmt.Sprintf("The key is in %s and the bucket in %s: use a key of %s.", region, c.Settings.Region, c.Settings.Region)
		}
	case "disabledexception":
		a.Says, a.Fix = key+" is disabled.", "Enable it."
	case "kmsinvalidstateexception", "invalidstateexception":
		a.Says, a.Fix = key+" is waiting to be deleted or has no key material.", "Cancel the deletion, or use another key."
	case "invalidkeyusageexception", "invalidkeyusage":
		a.Says, a.Fix = key+" is not for encryption, or is asymmetric.", "Use a symmetric key for encryption and decryption: S3 accepts no other."
	case "invalidarnexception":
		a.Says, a.Fix = key+" has a name that is not valid.", "Give it by its ARN: arn:PARTITION:kms:REGION:ACCOUNT_ID:key/KEY_ID."
	default:
		a.Says, a.Fix = key+" cannot be used.", "Look at its state and its policy."
	}
	if c.Settings.Endpoint != "" {
		a.Fix += " For a store that is not AWS, look into the KMS that the store is configured with."
	}
	return a
}

// arnPart returns part i of an ARN, or "".
func arnPart(arn string, i int) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return ""
	}
	return parts[i]
}

// writerARN returns the ARN of the identity that writes, or "".
func (c *diagnosis) writerARN() string {
	switch role := c.Settings.writer(); {
	case role.ARN != "":
		return role.ARN
	case strings.HasPrefix(c.denial.Principal, "arn:"):
		return IAMPrincipal(c.denial.Principal)
	}
	return IAMPrincipal(clean(c.Settings.Caller))
}

// ofWriter names the permissions of the writer.
func (c *diagnosis) ofWriter() string {
	if arn := c.writerARN(); arn != "" {
		return "In the permissions of " + arn
	}
	return "In the permissions of the writer"
}

// bucketPolicy returns the statement for the bucket policy that allows uploads, if
// the writer is known.
func (c *diagnosis) bucketPolicy() []Placed {
	writer := c.writerARN()
	if writer == "" {
		return nil
	}
	return []Placed{placed(c.Settings.Put, "In the bucket policy of "+c.Settings.Bucket, writer)}
}

// putDenied returns advice on a denied upload.
func (c *diagnosis) putDenied() Advice {
	d, s := c.denial, &c.Settings
	switch {
	case d.Reason == PublicAccessBlock:
		return Advice{Kind: BucketACL,
			Says: fmt.Sprintf("The bucket or its account blocks public ACLs (Block Public Access), and Config.ACL is %q.", s.ACL),
			Fix:  "Leave Config.ACL empty."}
	case d.Reason == BlockedEncryption:
		return setting("The bucket blocks uploads with this kind of encryption.", "Change Config.Encryption: BucketDefault, SSES3 or SSEKMS.")
	case strings.HasPrefix(d.Action, "kms:"):
		return c.keyDenied()
	case d.Reason == SessionPolicy && !d.Explicit:
		return c.writerSession(s.Put)
	case d.Reason == SessionPolicy && d.Explicit:
		return c.explicitDeny("the session policy of the credentials", "")
	case d.Explicit && d.Reason == "":
		return c.denyInBucket(fmt.Sprintf("the bucket policy, the permissions and the permissions boundary of %s and the policies of its organization", orWords(c.writerARN(), "the writer")))
	case d.Reason == ResourcePolicy && d.Explicit:
		return c.denyInBucket("the bucket policy of " + s.Bucket)
	case d.Reason == IdentityPolicy && d.Explicit:
		return c.denyInBucket(fmt.Sprintf("the permissions of %s%s", orWords(c.writerARN(), "the writer"), c.policyARN()))
	case d.Reason == ResourcePolicy:
		a := Advice{Kind: BucketPolicy,
			Says: "The bucket belongs to another account than the writer, or a policy of the bucket decides alone, and no statement of the bucket policy allows the upload." + c.owner(),
			Fix:  "Let the owner of the bucket add a statement with the writer as Principal.", Statements: c.bucketPolicy()}
		if s.ACL != "" && strings.HasSuffix(d.Action, "Acl") {
			a.Fix += fmt.Sprintf(" Or leave Config.ACL (%q) empty.", s.ACL)
		}
		return a
	case d.Reason == PermissionsBoundary, d.Reason == ServiceControl, d.Reason == ResourceControl, d.Reason == EndpointPolicy:
		a := c.guardrail(orWords(c.writerARN(), "the writer"), "s3:PutObject")
		if d.Explicit {
			a.Fix += c.demanded()
		}
		return a
	}
	return c.writerLacks()
}

// writerLacks returns advice on a permission that the writer lacks, or on a denial
// without a reason.
func (c *diagnosis) writerLacks() Advice {
	d, s := c.denial, &c.Settings
	put := s.Put
	if d.Action != "" && strings.HasPrefix(d.Action, "s3:") && !slices.Contains(put.Action, d.Action) {
		put.Action = append(slices.Clone(put.Action), d.Action)
	}
	a := Advice{Kind: WriterPermissions, Statements: []Placed{placed(put, c.ofWriter(), "")}}
	switch d.Action {
	case "s3:PutObjectAcl":
		a.Kind = BucketACL
		a.Says = fmt.Sprintf("Config.ACL (%q) needs s3:PutObjectAcl, and the writer does not have it.", s.ACL)
		a.Fix = "Leave Config.ACL empty, or add this statement."
	case "s3:PutObjectTagging":
		a.Kind = ObjectTags
		a.Says = "Config.Tags need s3:PutObjectTagging, and the writer does not have it."
		a.Fix = "Leave Config.Tags empty, or add this statement."
	default:
		a.Says = "The writer does not have the permission to upload to this folder."
		a.Fix = "Add this statement."
	}
	if d.Reason == IdentityPolicy {
		return a
	}
	if a.Kind == WriterPermissions {
		a.Kind = RefusedWithoutReason
		a.Says = "The refusal has no reason."
		guesses := []string{"the writer lacks the permission to upload to this folder"}
		if s.Endpoint == "" {
			guesses = append(guesses, "the bucket belongs to an account of another organization, and its policy does not name the writer", "a policy denies the upload")
		} else {
			guesses = append(guesses, "the access key or its secret is wrong (Ceph gives this answer for both)")
		}
		if s.ExpectedOwner != "" {
			guesses = append(guesses, "the bucket does not belong to account "+s.ExpectedOwner+", as Config.ExpectedBucketOwner demands")
		}
		switch s.Encryption {
		case "aws:kms":
			guesses = append(guesses, "the KMS key may not be used by the writer")
		case "":
			guesses = append(guesses, "the bucket encrypts with a KMS key that the writer may not use")
		}
		a.Says += " Possible: " + strings.Join(guesses, "; or ") + "."
		a.Fix = "Add these statements where they are missing." + c.endpointNote()
	}
	if s.Endpoint == "" {
		a.Statements = append(a.Statements, c.bucketPolicyOfAnother()...)
	}
	if s.Encryption == "aws:kms" && a.Kind == RefusedWithoutReason {
		a.Statements = append(a.Statements, placed(s.UseKey, "And for the KMS key, beside it", ""))
		a.Statements = append(a.Statements, c.keyPolicy(s.UseKey.Action)...)
	}
	return a
}

// bucketPolicyOfAnother returns the bucket policy statement for a bucket of another
// account.
func (c *diagnosis) bucketPolicyOfAnother() []Placed {
	placed := c.bucketPolicy()
	for i := range placed {
		placed[i].Place = "If the bucket is another account's, also in its bucket policy"
	}
	return placed
}

func (c *diagnosis) owner() string {
	if c.Settings.ExpectedOwner == "" {
		return ""
	}
	return fmt.Sprintf(" Config.ExpectedBucketOwner demands account %s.", c.Settings.ExpectedOwner)
}

// writerSession returns advice on a session policy that lacks a permission.
func (c *diagnosis) writerSession(needed policy.Statement) Advice {
	if c.Settings.writer().SessionPolicy {
		return Advice{Kind: OwnSessionPolicy,
			Says: "The session policy that the sink sends with AssumeRole does not allow " + orWords(c.denial.Action, "it") + ", though the role may.",
			Fix:  "Use WithoutSessionPolicy, and report it as a fault of s3sink."}
	}
	return Advice{Kind: WriterPermissions,
		Says:       "The session of the credentials was cut down to less than its role allows, by a session policy of the party that requested the session.",
		Fix:        "Let that session policy have this statement.",
		Statements: []Placed{placed(needed, "In the session policy", "")}}
}

// denyInBucket returns advice on a Deny statement that usually requires a header or
// another property of the request.
func (c *diagnosis) denyInBucket(where string) Advice {
	a := c.explicitDeny(where, "")
	a.Fix += c.demanded()
	return a
}

// demanded lists the usual requirements of Deny statements for uploads, and the
// headers that the sink sends.
func (c *diagnosis) demanded() string {
	s := &c.Settings
	sent := []string{"no encryption header (Config.Encryption is BucketDefault)"}
	switch s.Encryption {
	case "AES256":
		sent[0] = "x-amz-server-side-encryption: AES256 (SSES3)"
	case "aws:kms":
		sent[0] = "x-amz-server-side-encryption: aws:kms with key " + clean(s.KMSKey)
	}
	if s.ACL != "" {
		sent = append(sent, "the ACL "+s.ACL)
	} else {
		sent = append(sent, "no ACL")
	}
	if s.CreateOnly {
		sent = append(sent, "If-None-Match: * with uploads (Config.CreateOnly)")
	} else {
		sent = append(sent, "no If-None-Match")
	}
	if strings.HasPrefix(s.Endpoint, "http://") {
		sent = append(sent, "no TLS ("+clean(s.Endpoint)+")")
	} else {
		sent = append(sent, "TLS")
	}
	return " Such statements demand an encryption header or a certain KMS key (Config.Encryption), an ACL (Config.ACL), If-None-Match (Config.CreateOnly), TLS (aws:SecureTransport), an organization (aws:PrincipalOrgID) or a network (aws:SourceVpce, aws:SourceIp). Sent now: " +
		strings.Join(sent, ", ") + "."
}

// keyDenied returns advice on a denied use of the KMS key.
func (c *diagnosis) keyDenied() Advice {
	d, s := c.denial, &c.Settings
	use := s.UseKey
	if !slices.Contains(use.Action, d.Action) {
		use.Action = append(slices.Clone(use.Action), d.Action)
	}
	key := "of the bucket"
	if named := d.Resource; arnPart(named, 2) == "kms" {
		use.Resource, key = []string{named}, named
	} else if s.KMSKey != "" {
		key = clean(s.KMSKey)
	}
	switch {
	case d.Explicit && d.Reason == ResourcePolicy:
		return c.explicitDeny("the policy of the KMS key "+key, "")
	case d.Explicit && (d.Reason == IdentityPolicy || d.Reason == SessionPolicy || d.Reason == ""):
		return c.explicitDeny(fmt.Sprintf("the %s of %s", orWords(string(d.Reason), "policies"), orWords(c.writerARN(), "the writer")), "")
	case d.Reason == SessionPolicy:
		return c.writerSession(use)
	case d.Reason == PermissionsBoundary, d.Reason == ServiceControl, d.Reason == ResourceControl, d.Reason == EndpointPolicy:
		return c.guardrail(orWords(c.writerARN(), "the writer"), d.Action)
	}
	writer := c.writerARN()
	owner, account := arnPart(d.Resource, 4), arnPart(writer, 4)
	region := ""
	if r := arnPart(d.Resource, 3); r != "" && s.Region != "" && r != s.Region {
		region = fmt.Sprintf(" The key is in %s, but the bucket is in %s: a key must be in the bucket's region.", r, s.Region)
	}
	inRole := placed(use, c.ofWriter(), "")
	if owner != "" && account != "" && owner != account {
		return Advice{Kind: KeyPolicy,
			Says:       fmt.Sprintf("The writer may not use the KMS key %s. The key belongs to account %s and the writer to account %s, so both sides must allow it.%s", key, owner, account, region),
			Fix:        "Add both statements.",
			Statements: append([]Placed{inRole}, c.keyPolicy(use.Action)...)}
	}
	if d.Reason == ResourcePolicy {
		return Advice{Kind: KeyPolicy,
			Says:       fmt.Sprintf("The policy of the KMS key %s does not allow its use, and does not leave that to IAM.%s", key, region),
			Fix:        "Add this statement, whose Resource \"*\" is the key itself.",
			Statements: c.keyPolicy(use.Action)}
	}
	a := Advice{Kind: KeyPermissions,
		Says:       fmt.Sprintf("The writer may not use the KMS key %s.%s", key, region),
		Fix:        "Add this statement.",
		Statements: []Placed{inRole}}
	if d.Reason == "" {
		a.Fix = "Add the first statement; add the second if the key is another account's, or if its policy does not leave permissions to IAM."
		a.Statements = append(a.Statements, c.keyPolicy(use.Action)...)
	}
	return a
}

// keyPolicy returns the statement for the key's policy, if the writer is known.
func (c *diagnosis) keyPolicy(actions []string) []Placed {
	writer := c.writerARN()
	if writer == "" {
		return nil
	}
	statement := c.Settings.UseKey
	statement.Action, statement.Resource, statement.Sid = actions, []string{"*"}, "UseThroughS3"
	return []Placed{placed(statement, "In the policy of the KMS key", writer)}
}
