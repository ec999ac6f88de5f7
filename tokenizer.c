/* tokenizer.c: text to tokens and back.
 *
 * A language model reads numbers. Its vocabulary is a list of pieces of text, the place of a
 * piece in the list is its token, and a tokenizer cuts text into pieces. Both kinds of vocabulary
 * known here do it in the same way: begin with the smallest pieces and keep joining the two
 * neighbours that make the best one, until no two neighbours make any. They differ in this:
 *
 *                     SentencePiece (SPM)         byte-level BPE
 *   begins with       characters                  bytes
 *   the best piece    has the highest score       comes first in the list of merges
 *   text is split     nowhere                     into words beforehand, by regular expressions
 *
 * Sections: Unicode, patterns (a small matcher of regular expressions), rules (which patterns split
 * text for which models), vocabulary, normalization, merging, encode, decode, making a tokenizer.
 */
#include "tokenizer.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_TEXT = 1 << 30, /* bytes that encode takes */
    MAX_SPECIAL = 256,  /* bytes; longer special tokens are not looked for in text */
    MAX_PATTERNS = 8,   /* of a rule */
    MAX_STEPS = 512,    /* of a pattern */
    MAX_MEMBERS = 320   /* of all sets of a pattern */
};

#define SPACE_MARK "\xE2\x96\x81" /* U+2581, which SentencePiece writes for a space */

/* ==== Unicode ====================================================================================
 * Word-splitting rules speak of letters, digits and marks, the general categories of Unicode. The
 * table holds them as runs of code points from 0 on; tests/unicode.py makes and describes it. It is
 * unpacked to a byte for each code point.
 */

enum {
    CODE_POINTS = 0x110000,
    INVALID = CODE_POINTS,       /* + byte: a byte that is no part of a valid character */
    TEXT_END = CODE_POINTS + 256 /* what comes behind the last character */
};

/* Name i is bit i of a mask of categories. Every character also is in one of the last two. */
static const char category_names[] = "LuLlLtLmLoM NdN P S Z C ";
#define DIGIT (1u << 6)
#define SEPARATOR (1u << 10)
#define WHITE (1u << 30)
#define NOT_WHITE (1u << 31)

/* Unicode 16.0, which the tokenizers of Hugging Face go by */
static const char *const unicode_runs =
    ")kJcI$KIp$~UdU(OcIHI(PHIHI)xJH~HVDHIKqTIAUIGDHbH'gI$P'uI$_(i@N$]@N'sMA@A@[MA@AMAZNhAMAZ[MAMAY"
    "MA@N@AMAZA@AMND@[l@BA@BA@BA$]@N$j@N@BA@AZA(v@$QMAMN@AhAg@1QD(^&gq%V%wx$YCIC&`:VYCI@AXC[H@sV@H"
    "ZK@KMA&VK$k*I@NZ[%R@v@AI@AMN-_,w&cI$U(iMA$B@N-CK*pXC$K+YUXdK,SHEHRHRHE$i(aslU&bdUIUV%KHKc)dC$"
    "|'Q$~pQE7gHD$UKI$HPRImQ$~_VD%vXDE)I(bX5a%KD%y$~)q$pPIcCXEV'^mC$pC`CzX&DK(F`XHK%J$A'xI$G$i$p+]"
    "C'yK)r.K`D&iD$U$|RU$~HC&@`K$bXQX'^K$TKDflXED$UXRX`D$iEsQK_RX$~QV$JVDHEX`K$GsQX'^K$TKQKQKQXEKz"
    "sRX`fE$[lKD$[$~R_EH%D`K$oK_K'^K$TKQKyXED$cK`K`XD&GQRX$~HI$[D$HK`K$bXQX'^K$TKQKyXED$UXRX`$[`sQ"
    "K_RX$~ID$J%DEDK$Gf_KlfQKDKQfQf_f%Wszf`KmXD$NE%y$~b$g$Az$bK_K'kK&MXED$UK`Km$[RK_XDXQRX$~$[H$WI"
    "D`H$bK_K'kK$|KyXED$UK`Km$[R$NQKQRX$~KQE%_m$oK_K+]RD$UK`KmDIs_E$W_RX$~$rI$GK`K&hf'xK$oKDX$TfEs"
    "$HKEK$c$N$~XRH%_,zEQ$UsI$GC$cH$~U*nQKDKyK'xKDK$|EQ$pDXyKCK$UK$~Xl)kDd&DIHdR$L$~%@IEIEIEpR$bK*"
    "Ys'DHRy%KK*ZK$gE$LKV}qU*n+w'DD$~$K$Gml`D`Q$U_m%e%XDE$~mV*pK@$A@X+tHC[%/uKlX$TKDKlX+]KlX)qKlX$"
    "TKDKlX&@K.sKlX0yX`$s'Ff&M%B$N4tX$DXH'4vIH&ZJ(SUf2ecb$b$[&hm$v&u`U$v&hR%_%eK_KR%_-p)ecCcIDEX$~"
    "$N%@$N%N`KE$~$N*LC-}$[yR)~ED$A1b%D)VK%Xs%XsIfU$~)IXy%Q,Es(S$N$~Gf*D'kzXU-}$}K(|XE$~$N$~$N$XC$"
    "KX)W-Oz,m&[$bKU$~$X%B$p$tc`)I%fQ$~,E%s$ip*Y'Df}$~f_$~)I$FU$l@A$A+sXZ$f$i`H'QlE$GEQ`D$A,B0C%bC"
    "){*f0R2`@$l-C@$l$^$DX$CX$_$^$_$^$DX$CX$_K@K@K@K@$_$^%oX$_$`$_$`$_$`vKNhBIAd[KNhBdiXNhKd$_udX["
    "KNhBVK%P$A'|W$AJ'GI%iI%[J&TGCX$JdUC%@dUK%df)v&G)r&GV@q@VAZNZAI@du$L@I@I@IhIAhAlAVNM~@iqAI-f@A"
    "|Vs%9qp)AU$<Y'e%O'W/_3R'a'4F%v)L-MU)[%A&#['b0Ip)iU%9VX)iK8|,v,w@AZNghA@N@$DPZA-C@N$LY`@A$ApGU"
    "*qKA$AAX.f$[CH%yE'k$v$TK$TK$TK$TK$TK$TK$TK$TK)e,qC)hV%[*F(XK5f%_$3s(Z&RJcICDG%AV%[I$r$HHxVbCD"
    "HVK4xXRVPDH5nH^D$A+wK6dKVo%B)d*y$vI&M)[K%@)N$eI&C)i%@+G&C%.B$8-C0V(4,sC+2af.^$v+O$FU%#CCc&M$~"
    "Q'J'sDmH$}HC%zPR1b%@R$K$i'p$nV$O@[)_C$_YMAtCVYD@A@[%EuAuA$]hA@AMAX@AKAKAg@'W^@ADPA$TE_ElE'kzq"
    "Ef$Jq$N-pp$iR-U&i$iU$~$N&i$GcDHQE$~(n$cU'k%f%QH({fm,m%s%iKC$~sUyEC$o$~yK+]%s$v_E$bRX$~Xp&MC$G"
    "dD`-UED`QRyRDED(@QCU%JzUDPR%D$GX$GX$G$v$TK$TK+tIk$lCVs3e*L$cHRX$~$N%>5W%_'ks-H%*+J%7fX9E*{$Q%"
    "_v$ADE$|I%eKyKDKQKQK9`&`&T%6}U&R0QX.K$[I)k%Wq&N%A$N&N*PK%vIHdKHIUsyK$#JscI$KIp$~UdU(OcIHI(PHI"
    "HI$X$|C,RP)Vf$GX$GX$GX_f$YK$Y%lVX%WK(SK&uKQK&@X%r*F<i$Acs,Uf$t.v&`TdK%jfI,t,WE>N({f-H&GE(ds)d"
    "o$v'CG$bG$A*tz$A)IKH*Ys$bH|+q+K+L3MX$~$N*Us*Vs+O$i-p%QH%FK%{K$PKMK%GK%|K$QKNf-p%_%,D$v'^%D$b("
    "@$FK+iK$n1[$GXDK,EKQfDX'kKH$e'kV$W)V$i$r-B&uKQ$A|'^$JfH(S$AH0X.fsTQ&PX,cD`KR$AmlK_K({X`sE$r$["
    "$s$[({TH({b)k$bI(nRs|$X$v.Kf$X'^X$e&u$A$e&h$[p%_$W3o2J.`-_%l-`$[$J*Ym$i$~$N$~lCD'YfzHC'Z$iV$2"
    "e)YK+jKRHXQ&T_.`m({%@D$i'^%Ko}'e&hmp*{'P$W'J'k$v`-}&A$Xs'F$~EQRD$vm,R%KUKpE%l(F$[$~$N`*Y%sK$~"
    "pDRD$i*LEUD$v`,z%slpmHR$~DHDcK'F%Q&hK(F%X$KEQE/}$TKDKlK&@K$|H$N,m%X$A$~$NmK$bXQX'^K$TKQKyKRD$"
    "UXRX`XD$NE$AyRX$Ufz%Q$|KDXDK*tKD$pKEXEKmKzDEDUKU$iR)C-}&il}$~UKHE_)P,z'DQHD$i$~$)q,m$UX$p'olR"
    "*F,z&[cD%Q$~$N%i&|+w%fDH$N$~$N'E(u(aX&As$~TcI$T$-p,E&AH7{)`)a$~$r%_$bXDX$bKQK'x$HKRXmDEDRc$v$"
    "~1i$bX+B$UX$UDHDE(hD$}+O$UDm$fE$iD%K,`&NcD}%l2J$[%A$-H)qH%y$~$N$oK*g$cK$cD}%D$~&xfU)IX'_K%s2Q"
    "$TKQK*t$HfEKRK$UDE$i$~$N$GKQK)dzKRKzD$[$~%+}&umU$[RDE%eK)~$Ufz%i$~E4rD&G'S)A%lH)<K8V:KK}%Q$/|"
    "67k7LU%l+#h&TE$G&A%D$$<a$A'-F$:)W)I&i$~/>c'*J$[)VK$~sU3ZK$~$N)IXzH%D,z$U}qkHI%D$~K$WK'P$A&u&)"
    "c^+OPc$~$0_)`)a'np8I2esED.Y$[m%d0XPHCE%QR%y$4=[$i,*[+d$|%-<[kK$SKPK%'w&GD)C_XD%yl$i%=x4*y9R$A"
    "%ef$o$[$|XIRH$$0P$9P$~$N&*V2y,aX'l$v;P/c$:a%D+GX/azd$H$i$cV$U)Nm/n'W0q`I<c'F%_'F%_5K$v(I$#Q(O"
    "(P(O$QK&e(O(P@KMX@XMXhK$^iKAK$QK%G(O(PMKhX$^K$PK(PMKhKuK@f$PK(P(O(P(O(P(O(P(O(P(O(P(O(kX(BI(C"
    "I$D(BI(CI$D(BI(CI$D(BI(CI$D(BI(CI$D@AX-W&:R.Yq-V$gE%wEV}&GzK&A+*]$yD'@$N$D$3h$UK&[X$UKRKz$A/u"
    ")xE:],Rf$U$SX$~sDI%.D)IE&b,Em$~$AI&0P(aCm$~$3u)IRD$~sH&3g$TKlKQK&@K$0JX$r$U+d)z){$UCs$~sU(;d/"
    "QIbIo2y,UI&C$/ilK(aKQKDXDK$|KlKDKD$NDsDKDKDK_KQKDXDKDKDKDKDKQKDXlK$TKlKlKDK$|K&Z$A_KyK&Z-wV%#"
    "e,Js7y%_&EX&EK&EK*l%D%h$(l.m)A%l,Js$t$[V%y$L$'P*-Ps&`f%jf;xs6v$N%]sI&G%]s.k$i%B$N+T$i)NX%]sV/"
    "}%2N%_%wX%jf%B$A.k$[&EX%O$N$t$[$%pK6N$~*6{..<Q)k$&%v$N$5YX$2'A%y$>=q&G'5Q50B'$`.*o$+>]$A$&-t)"
    "9.<i$9L$;/3N";

typedef struct {
    uint32_t code; /* a code point, INVALID + byte, or TEXT_END */
    uint32_t mask; /* its category, and WHITE or NOT_WHITE */
} Char;

/* The well-formed byte sequences are those of table 3-7 of the Unicode standard. */
int tokenizer_char(const char *text, size_t len)
{
    static const struct {
        unsigned char first, last, low, high; /* of the first byte; of the second */
        int length;
    } forms[] = {
        { 0x00, 0x7F, 0x00, 0x00, 1 }, { 0xC2, 0xDF, 0x80, 0xBF, 2 }, { 0xE0, 0xE0, 0xA0, 0xBF, 3 },
        { 0xE1, 0xEC, 0x80, 0xBF, 3 }, { 0xED, 0xED, 0x80, 0x9F, 3 }, { 0xEE, 0xEF, 0x80, 0xBF, 3 },
        { 0xF0, 0xF0, 0x90, 0xBF, 4 }, { 0xF1, 0xF3, 0x80, 0xBF, 4 }, { 0xF4, 0xF4, 0x80, 0x8F, 4 },
    };
    const unsigned char *s = (const unsigned char *)text;
    size_t form = 0, count = sizeof forms / sizeof *forms;
    while (form < count && s[0] > forms[form].last) form++;
    if (form == count || s[0] < forms[form].first) return -1;
    int length = forms[form].length;
    for (int i = 1; i < length; i++) {
        if ((size_t)i == len) return 0;
        int low = i == 1 ? forms[form].low : 0x80, high = i == 1 ? forms[form].high : 0xBF;
        if (s[i] < low || s[i] > high) return -1;
    }
    return length;
}

/* Reads the character that text (len > 0) begins with; returns its length, 1 if invalid. */
static size_t read_char(const char *text, size_t len, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    int length = tokenizer_char(text, len);
    *code = length > 0 ? length > 1 ? s[0] & (0x7Fu >> length) : s[0] : (uint32_t)INVALID + s[0];
    for (int i = 1; i < length; i++) *code = *code << 6 | (s[i] & 0x3F);
    return length > 0 ? (size_t)length : 1;
}

/* Reads a number of a packed table: digits from # to > and then a last one from @ to ~. */
static uint32_t read_number(const char **text)
{
    const char *s = *text;
    uint32_t n = 0;
    while (*s && *s < '@') n = 28 * n + (uint32_t)(*s++ - '#');
    n = 62 * n + (uint32_t)(*s - '@' - (*s > '\\')); /* a backslash would need another */
    *text = s + 1;
    return n;
}

/* Writes a character, or the byte of an invalid one; returns its length. */
static size_t write_char(char *text, uint32_t code)
{
    static const uint32_t leads[] = { 0x00, 0xC0, 0xE0, 0xF0 };
    uint32_t c = code < INVALID ? code : code - INVALID;
    int more = c == code ? (c >= 0x80) + (c >= 0x800) + (c >= 0x10000) : 0;
    text[0] = (char)(leads[more] | c >> 6 * more);
    for (int i = 1; i <= more; i++) text[i] = (char)(0x80 | (c >> 6 * (more - i) & 0x3F));
    return (size_t)more + 1;
}

/* Unpacks unicode_runs into table (CODE_POINTS). */
static void unpack_categories(uint8_t *table)
{
    size_t code = 0;
    for (const char *s = unicode_runs; *s;) {
        size_t n = read_number(&s), kind = n % 13;
        for (n = (n / 13 + 1) << (kind == 12); n > 0 && code < CODE_POINTS; n--) {
            table[code++] = (uint8_t)(kind == 12 ? n & 1 : kind); /* 12: pairs of Lu and Ll */
        }
    }
}

/* The columns of a terminal that characters take, from tests/unicode.py */
static const char *const column_runs =
    "$`'d$c$$X(W0QR/l%HA@ACACAF&V_A@%L}o@'vRDODCAI$j@$Z$P'W_%qXY@$HIAXAFAL%CF%tX%@$GA$c%eFAtAR]C$W"
    "F%k@ARDCDFY@]C$N@DF%k@ALJCDFG@$ZCG@`F%k@AUAFAF{C$BOAF%k@ARDCDFML]C$Z@%tLGFAIY@$yL%h@ARAFAISC`"
    "C$WF%k@ARAFAISC`Cl@cI%hCARAFAIY@]C$WF&V@JOA@AUuC%z@DRcU'm@DX`R&`C$Q@A@A@JC%UzACM_A$lY@'sz$EIJ"
    "FAFDRGIfbA@]I'm'h*l3vF$4oI$TF$WC$ZC&D$`Y@%IL(hC$g@(kbJb-dL%n[A$VD@%R&FlL%Oq$sXcF$Ze%kh%Rz*TFA"
    "}J@P@DF,c&C<QL$HR%Un'g$c=nEfE,JKGBDB<KE~E$NWod%CB]QGBfBVErEMEVBMB~BSEABJBDBSBJE$TB$jBABJHAB%z"
    "H$HBiB$0bE%[BJB6pF)r@'g$`)J$OA'Rc-U$N%rOmD'IDC'wM%DA%]@%AA'IY%SA$zV$92DG%i7_IA[$aC&uC0H@G@J@$"
    "ELJ@&~C%Xt$Ntf@$sU$Kec$XGI%Oh$m@&Mhc@VC%IF%X@AFDCMCA@$|LMC.XUACu6+dc&t13o;p$Z@$*hn^Pn$kAyAK*E"
    "@A'h&A@&ATYb;r@-y@*KL%;qFACMI$yFJ@*|C>lI&GL2SC$ZL$an&V_%UI(wF%bk$|@DC]I%I_S@%zF$mhoC%F@cF%RhV"
    "IAC'ZbP@D@*db~I%hCARDCDFY@]CDRGL&MXA@D@AIALA@iC&{t$E@&xz.URDX$QC&{q(Fe'vk/Vk.tOACDIA@AC)rRDRG"
    "@$T[$yRAIV@Y_%Ln,cU,fUAU&{$AAh(wOG@ACARA@&JLACAL'N@/]IYCA@%RRGL$E@,)AqPk69kt'+oL%tR$9k@A%gSI&"
    "lK@`CNY/8Z$m$h'd(cf$3Mi%]0+~KATAEA1VYB$WHDBiNS6I'*OCAI+&X%KD$D:LC%wLG$ADR$ZI*HF`FVCD@$aC)D'LY"
    "$F%;z%gJ%WV@i@$BLAk%,qRAqDRACAL's@*mR5G@%zI;cI/PC.n@D@SCM@9yR(OR%>OB,oB,JBD^xB%h$Xf%GJZSEiQ*Z"
    "$ecZA&WA$Cc%DJNcsGBG&ZABA,BD&BfKA$IuB$NEfB'H'F%R&WPBGHDNDK`ESZ-jBMdJB0j%PA^A+{(XgG&ZABGvAgGd%"
    ")I'$)~D'$)~$//2B*%I.;6D";

int tokenizer_columns(const char *text, int length)
{
    uint32_t code, n = 0;
    if (length <= 0) return 0;
    read_char(text, (size_t)length, &code);
    if (code >= INVALID) return 1;
    for (const char *s = column_runs; *s;) { /* some hundred steps, for what is typed */
        n = read_number(&s);
        if (code <= n / 3) return (int)(n % 3);
        code -= n / 3 + 1;
    }
    return 1;
}

/* The printable character as which byte-level BPE spells a byte: itself if it is one in Latin-1,
 * else one from U+0100 on, in order. */
static unsigned byte_to_char(unsigned byte)
{
    if (byte <= 32) return 256 + byte;
    if (byte >= 127 && byte <= 160) return 289 + byte - 127;
    return byte == 173 ? 323 : byte;
}

/* Reads the character at text[at], or the one that spells the byte there; returns where the next
 * one begins. */
static size_t next_char(const uint8_t *categories, int bytes, const char *text, size_t at,
                        size_t len, Char *c)
{
    *c = (Char){ TEXT_END, 0 };
    if (at >= len) return len;
    size_t length = read_char(text + at, len - at, &c->code);
    if (bytes) c->code = byte_to_char((unsigned char)text[at]);
    uint32_t code = c->code, mask = code < CODE_POINTS ? 1u << categories[code] : 0;
    int white = mask & SEPARATOR || (code >= '\t' && code <= '\r') || code == 0x85;
    c->mask = mask | (white ? WHITE : NOT_WHITE);
    return at + (bytes ? 1 : length);
}

/* ==== Patterns ===================================================================================
 * Splitting rules are published as regular expressions, where the leftmost match counts and of
 * those the one that takes the first alternatives, as in Perl. A matcher that backtracks finds it
 * too, but can take quadratic time on long runs of one character. Here a pattern becomes a
 * program, and all ways through it advance together, a character at a time, in the order in which
 * a backtracking matcher would try them (Pike's algorithm; see Russ Cox, "Regular Expression
 * Matching: the Virtual Machine Approach"). Ways that reach the same step are one from there on,
 * so no character costs more than one visit of every step.
 *
 * Known: characters, \r \n \t \s \S \d \p{Lu} \P{L}, sets [...] and [^...], groups (...) (?:...)
 * (?i:...), a|b, the quantifiers ? * + {n} {n,} {n,m}, the possessive ones *+ and ++ behind a
 * set, ?+ (read as ?, which in the published patterns is the same), lookahead at one set (?=\s)
 * (?!\S), and $: the end, or before a newline. A pattern that begins with (?-u) doesn't see
 * characters but those that byte-level BPE spells the bytes with.
 */

enum operation {
    TAKE,     /* a character of the set */
    LOOK,     /* pass if the next character is in the set */
    LOOK_NOT, /* pass if there is none in the set */
    END,      /* pass at the end of the text and before a newline */
    SPLIT,    /* go on at step + x; step + y is second choice */
    JUMP,     /* go on at step + x */
    MATCH
};

/* A set is the members x to y of its pattern, or all other characters if negated. */
typedef struct {
    enum operation operation;
    int x, y, negated;
} Step;

typedef struct {
    uint32_t low, high, mask; /* holds code points low to high and the categories of mask */
} Member;

typedef struct {
    int n_steps, n_members, bytes; /* bytes: whether it sees the spelling of bytes */
    Step steps[MAX_STEPS];
    Member members[MAX_MEMBERS];
} Pattern;

typedef struct {
    Pattern *pattern;
    const char *at; /* what is left to read */
    int ignore_case, failed;
} Compiler;

static void compile_alternatives(Compiler *c);

/* Appends a step. */
static void add_step(Compiler *c, enum operation operation, int x, int y, int negated)
{
    Pattern *p = c->pattern;
    c->failed |= p->n_steps == MAX_STEPS;
    if (!c->failed) p->steps[p->n_steps++] = (Step){ operation, x, y, negated };
}

/* Appends a member to the set that is being read. */
static void add_member(Compiler *c, Member member)
{
    Pattern *p = c->pattern;
    c->failed |= p->n_members == MAX_MEMBERS;
    if (!c->failed) p->members[p->n_members++] = member;
}

/* Reads the name of a category, {L} or {Lu}; returns its mask. */
static uint32_t read_category(Compiler *c)
{
    uint32_t mask = 0;
    size_t len = strcspn(c->at, "}");
    for (int i = 0; category_names[2 * i] && (len == 2 || len == 3); i++) {
        if (strncmp(c->at + 1, category_names + 2 * i, len - 1) == 0) mask |= 1u << i;
    }
    c->failed |= mask == 0;
    c->at += mask ? len + 1 : 0;
    return mask;
}

/* Reads a character or a class. */
static Member read_member(Compiler *c)
{
    static const struct {
        char name;
        Member member;
    } escapes[] = {
        { 's', { 1, 0, WHITE } },   { 'S', { 1, 0, NOT_WHITE } }, { 'd', { 1, 0, DIGIT } },
        { 'r', { '\r', '\r', 0 } }, { 'n', { '\n', '\n', 0 } },   { 't', { '\t', '\t', 0 } },
    };
    uint32_t code = 0;
    int escaped = *c->at == '\\';
    c->at += escaped;
    char name = *c->at;
    c->failed |= name == 0;
    if (name) c->at += read_char(c->at, 4, &code); /* no character goes on behind the final 0 */
    if (escaped && name == 'p') return (Member){ 1, 0, read_category(c) };
    if (escaped && name == 'P') return (Member){ 1, 0, ~read_category(c) & ~(WHITE | NOT_WHITE) };
    for (size_t i = 0; escaped && i < sizeof escapes / sizeof *escapes; i++) {
        if (name == escapes[i].name) return escapes[i].member;
    }
    c->failed |= escaped && name && !strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", name);
    return (Member){ code, code, 0 };
}

/* Adds a character, and its other case if case doesn't count, or a class. */
static void add_cases(Compiler *c, Member member)
{
    uint32_t code = member.low, lower = code | 0x20;
    add_member(c, member);
    if (!c->ignore_case || lower < 'a' || lower > 'z') return;
    add_member(c, (Member){ code ^ 0x20, code ^ 0x20, 0 });
    if (lower == 's') add_member(c, (Member){ 0x17F, 0x17F, 0 });   /* long s */
    if (lower == 'k') add_member(c, (Member){ 0x212A, 0x212A, 0 }); /* Kelvin sign */
}

/* Reads [...], a class or a character, and appends a step with this set. */
static void compile_set(Compiler *c, enum operation operation)
{
    int first = c->pattern->n_members, brackets = *c->at == '[';
    int negated = brackets && c->at[1] == '^';
    c->failed |= *c->at && strchr("*+?{.^", *c->at) != NULL;
    c->at += brackets + negated;
    do {
        Member member = read_member(c);
        if (brackets && c->at[0] == '-' && c->at[1] != ']') {
            c->at++;
            member.high = read_member(c).high;
            add_member(c, member);
        } else {
            add_cases(c, member);
        }
    } while (brackets && *c->at != ']' && !c->failed);
    c->at += brackets && *c->at == ']';
    add_step(c, operation, first, c->pattern->n_members, negated);
}

/* Reads (...), (?:...), (?i:...), (?=set) or (?!set). */
static void compile_group(Compiler *c)
{
    int ignore_case = c->ignore_case;
    if (strncmp(c->at, "(?=", 3) == 0 || strncmp(c->at, "(?!", 3) == 0) {
        c->at += 3;
        compile_set(c, c->at[-1] == '=' ? LOOK : LOOK_NOT);
    } else {
        int fold = strncmp(c->at, "(?i:", 4) == 0;
        c->ignore_case |= fold;
        c->at += fold ? 4 : strncmp(c->at, "(?:", 3) == 0 ? 3 : 1;
        compile_alternatives(c);
    }
    c->ignore_case = ignore_case;
    c->failed |= *c->at != ')';
    c->at += *c->at == ')';
}

/* Repeats the steps from start on at least `least` and at most `most` times, -1: without end. */
static void repeat_steps(Compiler *c, int start, int least, int most)
{
    Pattern *p = c->pattern;
    Step body[MAX_STEPS];
    int size = p->n_steps - start, copies = most < 0 ? least + 1 : most;
    memcpy(body, p->steps + start, (size_t)size * sizeof *body);
    p->n_steps = start;
    for (int i = 0; i < copies && !c->failed; i++) {
        if (i >= least) add_step(c, SPLIT, 1, most < 0 ? size + 2 : (most - i) * (size + 1), 0);
        for (int k = 0; k < size; k++) {
            add_step(c, body[k].operation, body[k].x, body[k].y, body[k].negated);
        }
    }
    if (most < 0) add_step(c, JUMP, -size - 1, 0, 0);
}

/* Reads a quantifier for the steps from start on; returns whether there is one. */
static int compile_quantifier(Compiler *c, int start)
{
    char kind = *c->at;
    if (c->failed || !kind || !strchr("?*+{", kind)) return 0;
    long least = kind == '+', most = kind == '?' ? 1 : -1;
    if (kind == '{') {
        char *end;
        least = most = strtol(c->at + 1, &end, 10);
        if (*end == ',') {
            most = end[1] == '}' ? -1 : strtol(end + 1, NULL, 10);
            end += strcspn(end, "}");
        }
        c->failed |= *end != '}' || least < 0 || least > MAX_STEPS || most > MAX_STEPS;
        c->at = end;
    }
    c->at += *c->at != 0;
    if (c->failed) return 0;
    Step set = c->pattern->steps[start];
    repeat_steps(c, start, (int)least, (int)most);
    if (kind != '{' && *c->at == '+') { /* possessive: no more of the set may follow */
        c->at++;
        if (kind != '?') add_step(c, LOOK_NOT, set.x, set.y, set.negated);
    }
    return 1;
}

/* Reads a|b|c: a SPLIT goes in front of a, and a JUMP behind it leads over the others. */
static void compile_alternatives(Compiler *c)
{
    Pattern *p = c->pattern;
    int first = p->n_steps;
    while (*c->at && *c->at != '|' && *c->at != ')' && !c->failed) {
        int start = p->n_steps;
        if (*c->at == '(') {
            compile_group(c);
        } else if (*c->at == '$') {
            c->at++;
            add_step(c, END, 0, 0, 0);
        } else {
            compile_set(c, TAKE);
        }
        while (compile_quantifier(c, start)) { /* x{1,3}+ repeats x{1,3} */
        }
    }
    if (*c->at != '|' || c->failed) return;
    c->at++;
    int size = p->n_steps - first, jump = first + size + 1;
    add_step(c, SPLIT, 1, size + 2, 0);
    add_step(c, JUMP, 0, 0, 0);
    if (c->failed) return;
    Step split = p->steps[first + size];
    memmove(p->steps + first + 1, p->steps + first, (size_t)size * sizeof split);
    p->steps[first] = split;
    compile_alternatives(c);
    p->steps[jump].x = p->n_steps - jump;
}

/* Compiles a pattern; -1 if it is too long or has something unknown. */
static int compile_pattern(Pattern *p, const char *text)
{
    Compiler c = { .pattern = p, .at = text };
    p->n_steps = p->n_members = 0;
    p->bytes = strncmp(text, "(?-u)", 5) == 0;
    c.at += p->bytes ? 5 : 0;
    compile_alternatives(&c);
    add_step(&c, MATCH, 0, 0, 0);
    return c.failed || *c.at ? -1 : 0;
}

/* A way through the pattern: the step it is at and where its match begins. */
typedef struct {
    int step;
    size_t from;
} Way;

typedef struct {
    const uint8_t *categories;
    const Pattern *pattern;
    Char ahead;      /* the character that the ways will see next */
    Way *now, *next; /* (MAX_STEPS) the preferred ones first */
    int n_next;
    uint32_t round;
    uint32_t seen[MAX_STEPS]; /* the round in which a way last reached each step */
    Way ways[2][MAX_STEPS];
} Search;

/* Whether the set of this step holds the character. */
static int in_set(const Pattern *p, const Step *step, Char c)
{
    int found = 0;
    for (int i = step->x; i < step->y && !found; i++) {
        const Member *m = &p->members[i];
        found = c.mask & m->mask || (c.code >= m->low && c.code <= m->high);
    }
    return found != step->negated && c.code != TEXT_END;
}

/* Brings a way to a step, and on from there up to where it has to take a character. */
static void reach(Search *s, int number, size_t from)
{
    const Step *step = &s->pattern->steps[number];
    if (s->seen[number] == s->round) return;
    s->seen[number] = s->round;
    switch (step->operation) {
    default: /* TAKE, MATCH */
        s->next[s->n_next++] = (Way){ number, from };
        return;
    case LOOK:
        number += in_set(s->pattern, step, s->ahead);
        break;
    case LOOK_NOT:
        number += !in_set(s->pattern, step, s->ahead);
        break;
    case END:
        number += s->ahead.code == TEXT_END || s->ahead.code == '\n';
        break;
    case SPLIT:
        reach(s, number + step->x, from);
        number += step->y;
        break;
    case JUMP:
        number += step->x;
        break;
    }
    reach(s, number, from); /* where it cannot pass it stays at its step, which has been seen */
}

/* Begins a round: no step is reached yet. */
static void next_round(Search *s)
{
    Way *now = s->next;
    s->next = s->now;
    s->now = now;
    s->n_next = 0;
    if (++s->round == 0) { /* after 2^32 rounds old marks would look like new ones */
        memset(s->seen, 0, sizeof s->seen);
        s->round = 1;
    }
}

/* Finds the leftmost match in text (len) from at on that isn't empty; returns whether there is
 * one. */
static int search(Search *s, const Pattern *p, const char *text, size_t len, size_t at,
                  size_t *from, size_t *to)
{
    int found = 0;
    size_t next = next_char(s->categories, p->bytes, text, at, len, &s->ahead);
    s->pattern = p;
    next_round(s);
    for (;;) {
        if (!found) reach(s, 0, at); /* a match could begin here; earlier ones are preferred */
        if (found && s->n_next == 0) return 1;
        Char c = s->ahead;
        size_t after = next_char(s->categories, p->bytes, text, next, len, &s->ahead);
        int n = s->n_next;
        next_round(s);
        for (int i = 0; i < n; i++) {
            const Way *way = &s->now[i];
            const Step *step = &p->steps[way->step];
            if (step->operation == TAKE) {
                if (in_set(p, step, c)) reach(s, way->step + 1, way->from);
            } else if (at > way->from) {
                found = 1;
                *from = way->from;
                *to = at;
                break; /* the ways that follow are less preferred */
            }
        }
        if (at >= len) return found;
        at = next;
        next = after;
    }
}

/* ==== Rules ======================================================================================
 * Which patterns split text into words before merging; a model file names its rule. The patterns
 * are applied one after the other: each splits the pieces that the one before it left into its
 * matches and what lies between them, and sees every piece as a text of its own.
 */

enum {
    IGNORE_MERGES = 1, /* a word that is a token as a whole is that token, wherever merges lead */
    NFC = 2            /* text is normalized to the canonical composed form first */
};

typedef struct {
    const char *names; /* separated by spaces */
    int flags;
    const char *patterns[MAX_PATTERNS];
} Rule;

/* Letters that have case, by number since a few would change under Unicode normalization. */
#define CASED_WORDS \
    "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-" \
    "\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1" \
    "\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-" \
    "\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18" \
    "-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4" \
    "\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2" \
    "-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-" \
    "\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-" \
    "\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-" \
    "\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-" \
    "\U0001044F\U000104B0-\U000104D3\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-" \
    "\U00010CF2\U000118A0-\U000118DF\U0001E900-\U0001E943]+"

#define CJK_WORDS "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+"
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define ENDINGS "'s|'t|'re|'ve|'m|'ll|'d"
#define GPT2_WORDS ENDINGS "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* The punctuation of Unicode 8.0, which the step "Punctuation" of Hugging Face goes by. */
#define PUNCTUATION \
    "(?:(?![\u061D\u09FD\u0A76\u0C77-\u0C84\u1B4E\u1B4F\u1B7D-\u1B7F\u2E43-\u2E5D\U00010D6E" \
    "\U00010EAD-\U00010F89\U000113D4-\U000113D8\U0001144B-\U0001145D\U00011660-\U0001166C" \
    "\U000116B9-\U00011C71\U00011EF7-\U00011FFF\U00012FF1\U00012FF2\U00016D6D-\U00016FE2" \
    "\U0001E5FF-\U0001E95F])[\\p{P}$+<=>^~|`\u166D\U000111C9])+"

/* OpenAI's patterns for GPT-4 and GPT-4o, which most others vary. */
#define GPT4_WORDS(letters, digits) \
    "(?i:" ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?[" letters "]+|\\p{N}" digits "| ?[^\\s" letters \
    "\\p{N}]+[\\r\\n]*" SPACES
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define GPT4O_WORDS(ending, digits) \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ending "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER \
    "*" ending "|\\p{N}" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES

/* To add one: a row with the names that files give it (tokenizer.ggml.pre) and the patterns from
 * the pre_tokenizer of the model's tokenizer.json, in order. There "Digits" means \p{N}+, or
 * \p{N} with individual_digits; "Punctuation" means PUNCTUATION, and "ByteLevel" with use_regex
 * means GPT2_WORDS. What comes behind ByteLevel sees bytes: (?-u). NFC is set where the
 * normalizer is NFC (exaone's is NFKC, of which this is the canonical part). The first row also
 * serves files that name no rule, or one that isn't here. */
static const Rule rules[] = {
    { "default gpt-2 phi-2 gigachat a.x-4.0 mellum jais trillion", 0, { GPT2_WORDS } },
    { "gpt-neox olmo mpt exaone4", NFC, { GPT2_WORDS } },
    { "smollm starcoder refact codeshell minerva-7b mellum2", 0, { "\\p{N}", GPT2_WORDS } },
    { "command-r exaone", NFC, { "\\p{N}", GPT2_WORDS } },
    { "falcon", 0, { PUNCTUATION, GPT2_WORDS, "(?-u)\\p{N}+", "(?-u)[0-9][0-9][0-9]" } },
    { "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 glm4 glm5 smaug-bpe",
      IGNORE_MERGES,
      { GPT4_WORDS("\\p{L}", "{1,3}") } },
    { "dbrx lfm2 chatglm-bpe", 0, { GPT4_WORDS("\\p{L}", "{1,3}") } },
    { "qwen2 deepseek-r1-qwen stablelm2", NFC, { GPT4_WORDS("\\p{L}", "") } },
    { "megrez kormo hunyuan solar-open grok-2", 0, { GPT4_WORDS("\\p{L}", "") } },
    { "qwen35", NFC, { GPT4_WORDS("\\p{L}\\p{M}", "") } },
    { "seed-coder",
      0,
      { "(?i:" ENDINGS
        ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" SPACES } },
    { "gpt-4o llama4 kanana2 talkie",
      IGNORE_MERGES,
      { GPT4O_WORDS("(?i:" ENDINGS ")?", "{1,3}") } },
    { "tekken", IGNORE_MERGES, { GPT4O_WORDS("", "") } },
    { "deepseek-llm",
      0,
      { "[\\r\\n]", CASED_WORDS,
        "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+", "\\s+$", CJK_WORDS,
        "\\p{N}" } },
    { "deepseek-coder", 0, { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK_WORDS, "\\p{N}" } },
    { "deepseek-v3 hunyuan-dense joyai-llm",
      0,
      { "\\p{N}{1,3}", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
        "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" SPACES } },
};

/* SentencePiece has no rules. But where no piece goes on behind the end of a word, merging word by
 * word gives the same as merging the whole text, and takes less memory. */
static const Rule whole_text = { "", 0, { NULL } };
static const Rule spm_words = { "", 0, { "[ \u2581]+[^ \u2581]*|[^ \u2581]+" } };

/* The rule of this name, or NULL. */
static const Rule *find_rule(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        for (const char *s = rules[i].names; *s; s += strcspn(s, " "), s += *s == ' ') {
            if (strcspn(s, " ") == len && strncmp(s, name, len) == 0) return &rules[i];
        }
    }
    return NULL;
}

/* ==== Vocabulary =================================================================================
 * Hash tables with a 64-bit key for each entry: the hash of a spelling leads to the token, the
 * two tokens of a merge lead to the token they make, and the hash of the first bytes of a special
 * token says that one begins so. The bytes that the tokens stand for are unpacked once, so that
 * decode only has to copy them.
 */

enum { NO_TOKEN = -1 };

typedef struct {
    uint64_t key; /* 0: the slot is empty */
    uint32_t rank;
    int id;
} Slot;

typedef struct {
    Slot *slots;
    size_t size, used; /* size: a power of two, or 0 */
} Table;

/* What a token is to encode. Its type tells, and its form where types tell too little: files have
 * marks of type USER_DEFINED, NORMAL or without types, and byte tokens of type NORMAL. */
enum role {
    UNREACHABLE, /* no text becomes it */
    PIECE,       /* a piece of text */
    CUT_OUT,     /* cut out of text before anything else: user-defined */
    MARK,        /* the same, but only where TOKENIZER_SPECIAL is set: what a chat, a thought or a
                    call of a tool is marked with */
    SINGLE_BYTE
};

struct tokenizer {
    tokenizer_vocab vocab;
    Table spellings;          /* hash of a spelling -> token */
    size_t longest;           /* spelling, in bytes */
    uint8_t *roles;           /* (n_tokens) enum role */
    char *raw;                /* the bytes that the tokens stand for, one after the other */
    size_t *raw_at;           /* (n_tokens + 1) where those of each token begin */
    int byte_tokens[256];     /* the token of each single byte, or NO_TOKEN */
    Table special;            /* hash of the first bytes of a special token -> token or NO_TOKEN */
    char special_begins[256]; /* whether a special token begins with this byte */
    int swallowing;           /* special tokens from here on take the white space behind them */
    Table merges;             /* BPE: left token << 32 | right token, plus 1 -> rank and token */
    const Rule *rule;
    int n_patterns;
    Pattern *patterns;   /* (n_patterns) */
    uint8_t *categories; /* (CODE_POINTS) */
    Table canonical;     /* NFC: canonical_forms */
    char warning[256];
};

/* Writes a sentence into error (size), which may be NULL. */
__attribute__((format(printf, 3, 4))) static void set_error(char *error, size_t size,
                                                            const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (error && size > 0) vsnprintf(error, size, format, arguments);
    va_end(arguments);
}

/* FNV-1a, a byte at a time; begins with HASH_START. */
#define HASH_START 0xCBF29CE484222325u
static uint64_t hash_byte(uint64_t hash, char byte)
{
    return (hash ^ (unsigned char)byte) * 0x100000001B3u;
}

/* The key of a spelling. */
static uint64_t hash_text(const char *text, size_t len)
{
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < len; i++) {
        hash = hash_byte(hash, text[i]);
    }
    return hash ? hash : 1;
}

/* The slot with this key, or the empty one where it belongs. */
static Slot *find_slot(const Table *table, uint64_t key)
{
    uint64_t spread = key * 0x9E3779B97F4A7C15u; /* keys of merges differ in few bits */
    for (size_t i = spread >> 32;; i++) {
        Slot *slot = &table->slots[i & (table->size - 1)];
        if (slot->key == key || slot->key == 0) return slot;
    }
}

/* The entry with this key, or NULL. */
static const Slot *look_up(const Table *table, uint64_t key)
{
    const Slot *slot = table->size ? find_slot(table, key) : NULL;
    return slot && slot->key ? slot : NULL;
}

/* The slot of this key, made if there is none (rank 0, NO_TOKEN); NULL when out of memory. */
static Slot *add_slot(Table *table, uint64_t key)
{
    if (table->used >= table->size / 2) {
        Table larger = { .size = table->size ? 2 * table->size : 256, .used = table->used };
        larger.slots = calloc(larger.size, sizeof *larger.slots);
        if (!larger.slots) return NULL;
        for (size_t i = 0; i < table->size; i++) {
            if (table->slots[i].key) *find_slot(&larger, table->slots[i].key) = table->slots[i];
        }
        free(table->slots);
        *table = larger;
    }
    Slot *slot = find_slot(table, key);
    if (!slot->key) {
        *slot = (Slot){ key, 0, NO_TOKEN };
        table->used++;
    }
    return slot;
}

/* The type of a token; what is no known type is text. */
static int type_of(const tokenizer *t, int id)
{
    int type = t->vocab.types ? t->vocab.types[id] : TOKEN_NORMAL;
    return type >= TOKEN_NORMAL && type <= TOKEN_BYTE ? type : TOKEN_NORMAL;
}

/* Whether a token is no part of the text proper. */
static int is_control(const tokenizer *t, int id)
{
    return type_of(t, id) == TOKEN_CONTROL || type_of(t, id) == TOKEN_UNKNOWN;
}

int tokenizer_is_special(const tokenizer *t, int id)
{
    return id >= 0 && id < t->vocab.n_tokens && (t->roles[id] == MARK || t->roles[id] == CUT_OUT);
}

int tokenizer_find(const tokenizer *t, const char *text, size_t len)
{
    if (len == 0 || len > t->longest) return NO_TOKEN;
    const Slot *slot = look_up(&t->spellings, hash_text(text, len));
    if (!slot) return NO_TOKEN;
    tokenizer_text token = t->vocab.tokens[slot->id];
    return token.len == len && memcmp(token.data, text, len) == 0 ? slot->id : NO_TOKEN;
}

/* The same for what plain text may become: "</s>" and "<0x0A>" in it are just characters. */
static int find_piece(const tokenizer *t, const char *text, size_t len)
{
    int id = tokenizer_find(t, text, len);
    return id >= 0 && (t->roles[id] == PIECE || t->roles[id] == CUT_OUT) ? id : NO_TOKEN;
}

/* Fills the table of spellings: the first of equal ones counts, empty ones never. */
static int index_spellings(tokenizer *t)
{
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        tokenizer_text token = t->vocab.tokens[id];
        if (token.len == 0) continue;
        Slot *slot = add_slot(&t->spellings, hash_text(token.data, token.len));
        if (!slot) return -1;
        if (slot->id == NO_TOKEN) slot->id = id;
        if (token.len > t->longest) t->longest = token.len;
    }
    return 0;
}

/* The byte that a character spells, -1: none. */
static int char_to_byte(unsigned code)
{
    if (code >= 256 && code <= 288) return (int)code - 256;
    if (code >= 289 && code <= 322) return (int)code - 289 + 127;
    return code == 323 ? 173 : code < 256 && byte_to_char(code) == code ? (int)code : -1;
}

/* Writes bytes as byte-level BPE spells them, at most twice as many; returns how many. */
static size_t spell(char *spelling, const char *bytes, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        n += write_char(spelling + n, byte_to_char((unsigned char)bytes[i]));
    }
    return n;
}

/* The byte that a token spelt like <0x0A> stands for, -1: it isn't spelt so. */
static int byte_value(tokenizer_text token)
{
    static const char digits[] = "0123456789ABCDEF0123456789abcdef";
    if (token.len != 6 || memcmp(token.data, "<0x", 3) != 0 || token.data[5] != '>') return -1;
    const char *high = memchr(digits, token.data[3], 32), *low = memchr(digits, token.data[4], 32);
    return high && low ? (int)((high - digits) % 16 * 16 + (low - digits) % 16) : -1;
}

/* Names of HTML elements that are text in tags: Gemma's vocabulary has user-defined tokens for
 * <table>, </h1> and the like, which its models have read in web pages. Sorted. */
static const char *const html_names[] = {
    "a", "b", "blockquote", "body", "br", "caption", "code", "dd", "del", "div", "dl", "dt", "em",
    "h1", "h2", "h3", "h4", "h5", "h6", "head", "hr", "html", "i", "img", "ins", "kbd", "li",
    "ol", "p", "pre", "s", "small", "span", "strong", "sub", "sup", "table", "tbody", "td",
    "tfoot", "th", "thead", "title", "tr", "u", "ul",
};

/* Whether all bytes are in the ranges: "az09" are those from a to z and from 0 to 9. */
static int made_of(const char *text, size_t len, const char *ranges)
{
    for (size_t i = 0; i < len; i++) {
        const unsigned char *r = (const unsigned char *)ranges, c = (unsigned char)text[i];
        while (*r && (c < r[0] || c > r[1])) r += 2;
        if (!*r) return 0;
    }
    return 1;
}

static int is_html(const tokenizer *t, const char *name, size_t len)
{
    /* but <s> begins a text in vocabularies that don't have other tags as well */
    if (len == 1 && *name == 's') return tokenizer_find(t, "<strong>", 8) >= 0;
    for (size_t i = 0; i < sizeof html_names / sizeof *html_names; i++) {
        if (strlen(html_names[i]) == len && memcmp(html_names[i], name, len) == 0) return 1;
    }
    return 0;
}

/* Whether a text looks like a mark. To add a form: a row. */
static int looks_like_mark(const tokenizer *t, const char *text, size_t len)
{
    static const char visible[] = "!~\x80\xFF", name_chars[] = "azAZ09__--..::\x80\xFF";
    static const struct {
        const char *open, *close, *first, *rest; /* ranges of what is between them */
        size_t least;                            /* bytes between them */
    } forms[] = {
        { "<|", "|>", visible, visible, 1 },           /* <|im_end|> */
        { "<\uFF5C", "\uFF5C>", visible, visible, 1 }, /* DeepSeek's wide bars */
        { "[|", "|]", visible, visible, 1 },           /* [|endofturn|] */
        { "</", ">", "azAZ", name_chars, 1 },          /* </think> */
        { "<", ">", "azAZ", name_chars, 1 },           /* <end_of_turn> */
        { "[/", "]", "AZ__", "AZ__", 2 },              /* [/INST] */
        { "[", "]", "AZ__", "AZ__", 2 },               /* [TOOL_CALLS] */
        { "[gMASK", "]", "", "", 0 },                  /* GLM's */
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        size_t open = strlen(forms[i].open), close = strlen(forms[i].close), n = len - open - close;
        const char *name = text + open;
        if (len < open + close + forms[i].least || memcmp(text, forms[i].open, open) ||
            memcmp(text + len - close, forms[i].close, close)) {
            continue;
        }
        int tag = *forms[i].close == '>';
        if (tag && is_html(t, name, n)) return 0;
        int begins = made_of(name, n > 0, forms[i].first);
        if (begins && made_of(name, n, forms[i].rest)) return 1;
    }
    return 0;
}

/* What a token is to encode; raw: what it stands for. In byte-level BPE <0x0A> may be text. */
static enum role role_of(const tokenizer *t, int id, const char *raw, size_t len)
{
    int type = type_of(t, id), spm = t->vocab.kind == TOKENIZER_SPM;
    int byte = byte_value(t->vocab.tokens[id]) >= 0;
    if (is_control(t, id)) return MARK;
    if (byte && (type == TOKEN_BYTE || (type == TOKEN_NORMAL && spm))) return SINGLE_BYTE;
    if (type != TOKEN_NORMAL && type != TOKEN_USER_DEFINED) return UNREACHABLE;
    if (looks_like_mark(t, raw, len)) return MARK;
    return type == TOKEN_NORMAL ? PIECE : CUT_OUT;
}

/* Writes the bytes that a token stands for, no more than its spelling has, and finds its role;
 * returns how many. */
static size_t unpack_token(tokenizer *t, int id, char *raw)
{
    tokenizer_text token = t->vocab.tokens[id];
    int spm = t->vocab.kind == TOKENIZER_SPM, type = type_of(t, id);
    int plain = is_control(t, id) || (type == TOKEN_USER_DEFINED && !spm);
    size_t n = 0;
    for (size_t i = 0, len; i < token.len; i += len) {
        uint32_t code;
        len = read_char(token.data + i, token.len - i, &code);
        int byte = plain ? -1 : spm ? (code == 0x2581 ? ' ' : -1) : char_to_byte(code);
        if (byte >= 0) {
            raw[n++] = (char)byte;
        } else {
            memcpy(raw + n, token.data + i, len);
            n += len;
        }
    }
    t->roles[id] = (uint8_t)role_of(t, id, raw, n);
    if (t->roles[id] != SINGLE_BYTE) return n;
    raw[0] = (char)byte_value(token);
    return 1;
}

/* Unpacks all tokens, and finds the tokens of single bytes. */
static int unpack_tokens(tokenizer *t)
{
    size_t n = (size_t)t->vocab.n_tokens, total = 1;
    for (size_t id = 0; id < n; id++) {
        size_t len = t->vocab.tokens[id].len;
        total = len < SIZE_MAX - total ? total + len : SIZE_MAX; /* as good as no memory */
    }
    t->raw = malloc(total);
    t->raw_at = calloc(n + 1, sizeof *t->raw_at);
    t->roles = calloc(n, sizeof *t->roles);
    if (!t->raw || !t->raw_at || !t->roles) return -1;
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        t->raw_at[id + 1] = t->raw_at[id] + unpack_token(t, id, t->raw + t->raw_at[id]);
    }
    for (int byte = 0; byte < 256; byte++) {
        char spelling[2], raw = (char)byte;
        int id = find_piece(t, spelling, spell(spelling, &raw, 1));
        t->byte_tokens[byte] = t->vocab.kind == TOKENIZER_BPE ? id : NO_TOKEN;
    }
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        int byte = t->roles[id] == SINGLE_BYTE ? byte_value(t->vocab.tokens[id]) : -1;
        if (byte >= 0 && t->byte_tokens[byte] == NO_TOKEN) t->byte_tokens[byte] = id;
    }
    return 0;
}

/* Fills the table of special tokens, with an entry for each way in which one begins. */
static int index_special(tokenizer *t)
{
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        const char *raw = t->raw + t->raw_at[id];
        size_t len = t->raw_at[id + 1] - t->raw_at[id];
        if (!tokenizer_is_special(t, id) || len == 0 || len > MAX_SPECIAL) continue;
        uint64_t hash = HASH_START;
        Slot *slot = NULL;
        for (size_t i = 0; i < len; i++) {
            hash = hash_byte(hash, raw[i]);
            slot = add_slot(&t->special, hash | 1);
            if (!slot) return -1;
        }
        if (slot->id == NO_TOKEN) slot->id = id;
        t->special_begins[(unsigned char)raw[0]] = 1;
    }
    return 0;
}

/* Whether text may become this special token. */
static int is_wanted(const tokenizer *t, int id, int flags)
{
    int defined = flags & TOKENIZER_USER_DEFINED && type_of(t, id) == TOKEN_USER_DEFINED;
    return t->roles[id] == CUT_OUT || flags & TOKENIZER_SPECIAL || defined;
}

/* The longest special token that text (len > 0) begins with, or NO_TOKEN; writes its length. */
static int find_special(const tokenizer *t, const char *text, size_t len, int flags, size_t *length)
{
    int best = NO_TOKEN;
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < len && t->special_begins[(unsigned char)text[0]]; i++) {
        hash = hash_byte(hash, text[i]);
        const Slot *slot = look_up(&t->special, hash | 1);
        if (!slot) break;
        int id = slot->id;
        if (id == NO_TOKEN || !is_wanted(t, id, flags)) continue;
        if (t->raw_at[id + 1] - t->raw_at[id] != i + 1) continue;
        if (memcmp(t->raw + t->raw_at[id], text, i + 1) != 0) continue; /* an equal hash */
        best = id;
        *length = i + 1;
    }
    return best;
}

/* ==== Normalization ==============================================================================
 * Many characters have two spellings in Unicode: U+00E9 is also U+0065 and U+0301. Some models
 * want all text in normalization form C: characters are taken apart as far as possible, the marks
 * behind a character are sorted by their combining class, and then what can be joined is joined.
 * The table, which tests/unicode.py makes and describes, becomes a hash table.
 */

/* Unicode 9.0, which the normalizer of Hugging Face goes by */
static const char *const canonical_forms =
    "%n;q$C)LDPDHE,kA,^FNB+7wB&kH+;SDPDHE+kA+^FNB+6wB&kp+DZ-bHuJeH+2KF+0sHuJeH+2KF+1DABO(CABz$yAB$"
    "U'_ABNZAB*p)kD]BDBaF}F[DaH'[DDBDBDFDFDDDA%qAa$L+)OCZ^%JCZ&=e*;BABGNABGNABGNABGNABGNABGNABGNAB"
    "GNABGNABGNABHPGNABGNAB$X&J$Aa&rB$C,'xB%NB$|B,iB,`B+5kA+2KA+2iA+2SA&fA+6iB+2^ALB'GB+7yB+7rA(BG"
    "'xB$NB|B+iB+`B+4kA+2KA+2iA+2SA%fA+5iB+2^ALB&GB+6yB+6rA'Bo3wZ*>}C+/lADA+*gC(wE'hE(NA'OC+,nD$OF"
    "+0wC+/lADA+*gC(wE'hE(NA'OC+,nD$OF+1HABO'zABz$yAB[$LABx&HABNZAB*p+%IDDBBBBFDFDDBH{DBBBBBF{FBDB"
    "A$~A$BG$H$C$cGRY%RGR&=c*;HABGNABGNABGNABGNABGNABGNABGNABGNABGNABGNABHPGNABGNAB$X&H$Aa$CB$C,'x"
    "B%PB$~B%iAPA%pA&RE&ED'XB'IB'{BDA+3TG+8EB$PB~B$iAPA$pA%RE%ED&XB&IB&{BDA+3T'/_wABWsABScABzB$C+;"
    "[D+:aD+7OE%rAHF'oA+3HC'@H+;YD+9aD+7OE$rAHF&oA+3HC'@$K%bHuJeN$WHuJeN$GAB%b$XABNZAB$[B$C+:KDeB+"
    "2{B+2IF$FF}D)]H,tDeB+2{B+2IF$FF}D)]$M%nBHO%XACF%nHTBHO%XACF%n&umAB|YABG%cAB(m+6wH$BLaL$rH$BLa"
    "$U*=zKXUUKX&:I*/sABd$HAB$CD$C+5YDeBTB]F$FF}L&WDeBTB]F$FF}*A+/wAB(s0PH$BLaL$rH$BLa$M*>^ELAjB(Y"
    "KUM)RELAjB'YK$L&;v*8cAB$`B$C+.xA+)DA+2MA+2_A+2EA+2oA+2YA+2cA+2AD+3@AHA+*zA++aBDAPATCyAHAHA+3E"
    "G(cA+)DA+2MA+2_A+2EA+2oA+2YA+2cE}AHA+*zA++aBDAPATCyAHAHA+3E&g+1mABEBAB_$k'*Q$hAB$pB$C+7rDNC+5"
    "ZA+5QFNFLB+7yAPA+3GH'pDNC+4ZA+4QFNE+7kA+7^B+6yAPA+7C$_+5BaB$x$XAB,@*<[LBT$@LBMRu$iJ)cE)nA*DAD"
    "ALFDETDHDHBWCrE'KA'aADALFDETDHDHBWI't%F'NABO_ABrB$C*3VDqD]FLFqDaH%jDqD]FLFqDa$K%bHuJeN$WHuJeN"
    "$GAB%b$XABNZABMB$C+<AT(]L'YT']B+3sBBMB$Q+4tF$BZ~F$B2L$#{aB$MB$C<~B)MADAXB)eA$sA%bBsA(`BTA']C&"
    "xAPAHA&eE%pG%gB)MADAXB)eA$sA%bA$BAMA(`BTA']C&xAPAHA&eE%p$e%{aB&Ai&bB^F$CcDHDHFHCHCHLfDHDHFHCH"
    "CH3`6iABYD$C7QDHDHFHCHCHLfDHDHFHCHCH^D1n+2@DaBaBaFaJ$BH&UDaBaBaFaB(RD'pDabB1n%rDaBaBaFaB(PD'n"
    "DaH&UDaBaBaFaB(RD'pDaIN$Q+8lF_Z[F_$WP$C+1}A(ABPA(cC'pA(VB'xAHAXAHA'TC&jAPATA&wA&QATB&_A&IG_A("
    "ABPA(cC'pA(VB'xAHAXAHA'TC&jAPATA&wA&QATB&_A&I'o%cABNZABEB$W'EaBEB$C&laBIB$U+)^AD`AADnB$E-|A+4"
    "uA+)[B+[A+2kC+2AAJBTDcAPAHO&|A+3uA+)[B+[A+2kC+2AAJBTDcAPAHUB$C&CDiDmF)DF&vL&`DiDmF)DF&vYJ$F+/"
    "VALG$JB]F$NALO&KALG$JB]F$NALEB$J%^aBMD$GbDeL%TP%vDeL%TdB$D&dBPG$NALB]DmBaF$NH'bBPD'VC&GALB]Dm"
    "BaF$N$[N}$&qA[A_'<e)vBBBg}$@BDBAp$oEJCFXqBDWwGFBFCDE$JTUC]ABMFABCFABCNABA&DABE%~ABCFABJ%wABP$"
    "pFBABBBG$yABABAB|T%m=K/bUFaBaLaDaA~Aa'#U*OABGNABWoABGNABGNABGNABWoABHPGNABGNAB$X&F$Aa%CF1n$GF"
    "aR$cC%SBaCbFaR$cEB'#R&nABABABABABABABABABABABABABABABQBABABABABABABABABABABABABABABABrBABABAB"
    "ABABABABABABABABABABABABAFDaH$c{$xPaq$cC<N<Y*4SMB<YBbBBD$z(BQcCfCB<Y'~G:}$,s;yHPCFC'L$/W'wCs$"
    "/WBC.e$5d/VCq$5dECB$5dHE&T$7g'DABEs$6q$pu$sC'F$9k'@C&_$;o'LGg$;hSGNDHCB$;oEE&V$=s'LABCs$=sBE&"
    "m%$K'eCFCJ%$KACa%$KDC6D%-j5uW&*D&>d&(sBDBDBDBDDHj$TBDBFABCD$d)+i*&T)+BE%SBDBDBDBDBDBDBDBDBDBD"
    "BDCFBDBDGNCFCFCFCFc$FI%qE%SBDBDBDBDBDBDBDBDBDBDBDCFBDBDGNCFCFCFCFTwABABABKHUB*&~'bCFCFCFCF$V%"
    "mCFCFCFCFG%-%u$/(d%,>iBDJ_E&a$/+A'NABC4P$/3h4ZCs$/3hBC.H$/9f.wCT$/9fACF$/9fFE*s$/=m+HABL%<<G|"
    "%;;j%@R+Rf$I$jABRDi@$c+/q$V].h^A$hB]ADAaB}B[AaA$Q]&IADADADA&_I$KS%MADADD@'7J'NABF@$M,e$}B.{ID"
    "@*%T3gAB+P@.1Q%*(Lf&IG%w$K%ID(Hi%IR'Te%n%g&|E'Xu%d$o&e%tr%S%ID%w$L(OR%ZC$IPA|%TR%FQ$F$Q$rR$|H"
    "gp%YL$GW%ecxi'Xw)j$P%cc&Ok)}N_f&`$~}&P'n(}(F(p$|$}$EGO$l$nIEc&w-H$E@%ZGe$SBd&jC'q%ySx(r$m']&@"
    "z$WiA&zc%yX%A%K's_&j$N$}^%IJ%]&KZ$f$B$N%W$i'KJ'No%H%`(dF$opq%A$ef$`'Byk&G%y$ub%om$x$P&@$xv$@$"
    "vo'[d$Rx({nr]$Z$_$Wec$m&Eh&V(e)h@%T@&LQ&l&Fvrh$v&exsL$l&TD$FSY&}w)hg(uj(I$d)cO(YP'Z%wU_$DW*^$"
    "@%XT%L&N&fS&J%`&up%|Q'Y$s'B%I$]B$_$B)CKh$I$R$a(s})j$|'@R%O@&{l$^m'ti)gCp$c|atO%{&G$EL%rKh$u'N"
    "$c$Ih(p%B$LZ$w(u&Hb'n$@Xr{p$D$W%Up&{]$C$T%A%t(L$WB'g%hc&Is(u$W'Cj%mR&OMv$td_uw%B$E%O(L'uL)zU("
    "J$j&|$G'@jrO%hM](W$[P)m%K&z$yO$S']%W)Kiu$N%CL%q%j$XN$T&W(Gn)gL)AhlR^^$N(i$K$hm%h&yM%RRBW)x$oe"
    "(P%Z@$gi$ID$ziy$](Hi(M&N%x$}%TF%M'p$k&b$l$_'uD%By%W$Px$v$T$[$TS(j$As%af$L(FX$gC&[B&n$f(X&V&j$"
    "H%},vj%E%D^&pkPC&{NR^kU$tk$gT$rA&W|bV&}&VB$Hy)`(v$|&a'M%`&o(})p(zet$d$BX%TH&]p&Y&E$yO)E@B)e@+"
    "9I1q5`BbB%$`&M(eFo%I(CB$[$KE&VH%G[%DXFvGj%|jj&F&sB%I[BV%J$Y%G+T%L$FBD%K@%Hd&[c&ce%K$eB*gBZ$S@"
    "&_$P%GK%J%UBPB'VB&LB$`'A&f$qJB,J$xm'JA&tF&w%TB$FB&Nt`$^$F%VqD$HARFH%[gB@%X$g%U@%Z$DB%d'[&x'_$"
    "ZBwB'E%`G%c%P%`%V$b@'F^%`d$|$f'aDB|B'x%d/L%g$CB(o'jd'mw%h%hB%v%kPA$I%f@%k'DB(Z%j@%m&C%jJ%o$}B"
    "$~'Y@']'@%p$Q%s%YBvB&iBBB%p'd@'gQBYB$NDJA$`W&q%h|&F$s'nB$kJDAAGDFBGBA$rGBi$sABA$r%v$u$CBq%s'W"
    "%p@%s&AB$E'jXt%I(c%^%t@%wU%tyB'E%uu%r$M$z$J$}@%s*w%plc$d`@B&`%o%bB$k%n*I%A(r's&Y(d&J%ur%q$GBE"
    "(dK%s@%s'rBLDcFK(A@'yFFC%z@%yy%v@%}$SB(S%|vB@%},BBC)A$~&D%F%E@%H{%}$o'r`O%a(F&dB2v)Cp)F|'vm$u"
    "@&D$v(`@(c%IBe&E@&HLBq&G@&J%y(MMBmB*y(L-w(I)[(a$MBNU%$<RDFA$6jD%)U&O%*Y&X$2^B(#[B+P@*8P(-(D[N"
    "gXwJ*h%JNB%I]%sZtJZD$MX]JzN_A&{$D$@J${TeAQCqa$VR$~NwH$&Iv$1t)xEADD%Oo%Xj$PBMB$IB${B`BwDXA$iHG"
    "BPBCHPEVHE)FCBB)CMBHDIB$BDNBD$gu$bKBmBEB$RDBB[BVBKBABQBsBHBIBYBJBBB@B@B$MFUBLDFBUBsDPBaBwEDH$"
    "VBZB$EBPBbB@BUBRBHBOB$FD$MDdB%gGAD$wP$EEgBYBeFAA$}D$DMDREBOBTBHB$BB$yLTEpBLB$AD%gFwB@B%IDUBOB"
    "LBLDGB]D$@DNB`DtA%GFiFCAND$hBAB[DlBUBmB$IHCBCBTBuDeH@Br$CO$LIBpDtBJBcB%LBSFtD%EBDB@DBAmDTBVDK"
    "BCCmFTBDBZBKB$DB$VBdBiH$CASCXH[BgJ]A`E$@D$IHNFGC`B%wF^B$zD$iD$JDKL$_QHPWHDBFBsDKAhJ$xAfLtGtBI"
    "D%JDoD$dB$IB&DBtD$HDtD_DnB[BAB%WHYH$ZCNB$KD0u)`%.C(L(_%I%#0|'h3Z_pH&vQ3R$P(AH$.O$D*RN$DB.uV(Z"
    "J+C'V&`'ABD1zX){P@B2Ae4Zi&lL3zX.D$h'S%P%oL,HR+TH*uN$pD*PD(0P&K*%Q&~%4E&m+P@*8n-J$)})K$fX'_iLD"
    "@B$fL&hVLBrTMD$RB$OJ$NN&YPfH$|F$dLtHfF%@ZwF$cT&FssNDBJF$oZcF}L%MJIB.e$D$SF%LLHB}F$(C&Y$(DW/U&"
    "c%+B*hJMCDiBNCAFMB$wRwK$AB$[FDA%hH$ZF$WFCA[AQHnDFAqD%]D$YD%PDMB[BqDUB&lFQBZD%gFUBUBTB$GB$]DZD"
    "sD%eD&kLkJAB@BlB$CD&IH$@B$BB%NFzF$_B$WDJBEB%dH&_FCB'QFQFEAXD$fD$gD|B$EB'~L[D$hBKB$^FPD$DF$SB|"
    "D&ILCB%KHFALDTDBBJBiFACxFFFqHPK$LBPDMHBBPBKI$sB%_RBBdB$PD&sNLBKBBB`DbAzFmAZF$EBNCMF$^DaB$bDCB"
    "$wDGB]D)sL$OB%bB&QB$XDVB$]B$_B$GHOAfD&kD$gB$i%h&}%o$`BaBJD'fB$FF$^CAB'jD]B)BDmD'TF$cD&CJlH@B$"
    "<:a*U.v)H&aH&5M(Q%4R%RuRIB$.P'O*AN%QFqB.lX(RD,pH'vF&fB4D]$_D/hHWB%PB%sJAAgDZB/BR+YJ$wDlB.MN't"
    "B@B'LF&[H/_L-wN`B%VD$hD)iH$KB%ID+ORNB1d_'BZ%dD%ZA*OP%IF'jB/PK-ru,YL%}B0]N-[J>YP[B(KH6sP)IH2mJ"
    "&[B+@H%PD}@.%`L%`J'HJ`BKF$aJ.#|l%~D$ID%BB[B}B']F'wB&CB$mF(_L$@DEBGBJBGBfB%5%pv9gP:LNxD'QB%GB1"
    "KRB;s/a*>9fB$q)+~.5}B7a;I%(.qDF;@cc^BB;@aBB;EymF;@vABABABABABABBDABABABABBDBDABBDABBDABABABAB"
    "FF;ADJBIBDD;Y$I$+(JDDB;YA$+(JDP$#m$,`%2,CABABEBEBABIBDBF'H$.p'BABMDL'H$0i&{ABEBOFG$WFFD+P$4|,"
    "_ABB$)q%*p$(oBD%*pDFX%*pX$CUADD$m%)}^$R%eTD%*@&rJTEJEJEJx$qJTEJEJEJH'74_%/4Y'74gAB$d%}ABFR%/4"
    "b%|$_&@ABFB%/4b%~$_&BABBB%/4b&ABB%/4bBBB%/4bB@wAK0ND&8n@MF3IADBJACA$).S@1*TD/$K@&$sBFV$-H@%C@"
    "%C@%C@%C@)K@1V@$4V@%v@$R@7;K@2(X@%}@$X@$n@%w@$T@'Q@%@@'D@&}@$&$]@AA*'jAAl$-Y@%C@%C@%C@%C@%C@%"
    "C@%C@%C@%@@$r@(S@%yA$#Q@`@%b@-b@&j@$hA$HA%3[@5$y@&C@%R@$o@'~@&}@0<[@;w@y@z@$|A%O@$w@%y@$e@&{@"
    "%C@'D@%C@$y@$w@7|@AA:_@AA:`@AA:a@AA:b@AA:c@AA:d@AA:e@AA:f@AB:g@N@AA:hAAA:j@AA:k@AA:l@AA:n@AA:"
    "p@AA:q@AA$,#w@AB<~@-y@AB=@@-y@AB=A@-y@AB<J@v@AB<K@v@AB<L@v@AA=E@AA=F@AA=e@AA$$K@qA$9z@GA$9{@L"
    "A%%mADA%%}CKA%'qADA%(BCGA%*p@AC%*q@GCB@BA%*s@$HC/zADA&=C@LA'.D@BD/t@$9A@%--pAGDBA*%w@B$I/oCBD"
    "BCBJECJBCADCBA,H@D@D@FEB@Z@%SAE@B@%G@F@B@$E@B@BBAAA@C@A@A@A@%n@$iB%K@B@B@CBF@BA$Y@:tA[@A@%R@&"
    "L@$*t@&c@$i@vEB@%s@(sDBCM@&Z@G@D@n@A@/@@CC7%`B)R@/+cF2n@&i@$$g@m@%p@$$*{GGA&/DFBD:H@R@%;l@&-p"
    "@BA*%{ABA%/4p@BC:]@%9V@&0C@B$q/XTiGA@CBCBD@C@GL'[D'RCABBEFAAAB@T@$MG|ABDAA$zFBCA@BABA$E@AAAAC"
    "@B@ABA@A@A@AA%eFA@cCAHABAD%kMBAAAABFBAABD$S@AA<`ABA2tB5b@(g@&c@$`GtDFA%s@AF(gBGAD@S@CA&LAAFAA"
    "DeE@B@.hABCCAD@E@A@F@$8aB&u`48Q@DIaA$RA*}Q*L@AACAEAA@/+NFGA8qD>J@i@%q@<LB,vFCD/=OF2%ZDaC%XB%#"
    "lFAPBFAAAD$,dEBD/n@D@~@)4E@AD0w@B@B@&<t@AC0xAAA&<E@FA0`@";

/* Entries of the table: the first and second character that one decomposes into (rank and id, which
 * is 0 if there is no second), the one that two compose to (id), and the combining class (rank). */
enum { DECOMPOSES = 1, COMPOSES, COMBINES };

/* A character of text that is taken apart: its class, its place and itself, so that they sort. */
enum { CODE_BITS = 21, PLACE_BITS = 32 };
#define CODE(piece) ((uint32_t)((piece) & ((1u << CODE_BITS) - 1)))
#define CLASS(piece) ((piece) >> (CODE_BITS + PLACE_BITS))

static uint64_t canonical_key(int kind, uint32_t first, uint32_t second)
{
    return ((uint64_t)kind << CODE_BITS | first) << CODE_BITS | second;
}

/* Adds an entry; returns 1 when out of memory. */
static int add_canonical(Table *table, uint64_t key, uint32_t rank, uint32_t id)
{
    Slot *slot = add_slot(table, key);
    if (slot) *slot = (Slot){ key, rank, (int)id };
    return !slot;
}

/* Reads a difference, which may be negative. */
static uint32_t read_difference(const char **text)
{
    uint32_t n = read_number(text);
    return n & 1 ? -(n / 2 + 1) : n / 2;
}

/* Unpacks canonical_forms; -1 when out of memory. */
static int unpack_canonical(Table *table)
{
    const char *s = canonical_forms;
    uint32_t first = 0, second = 0, code = 0, rank = 0;
    int failed = 0;
    for (uint32_t n; (n = read_number(&s)) > 0;) {
        second += read_difference(&s);
        first = 0;
        for (uint32_t i = n / 2; i > 0; i--) {
            first += read_number(&s);
            code += read_difference(&s);
            failed |= add_canonical(table, canonical_key(DECOMPOSES, 0, code), first, second);
            if (n % 2 == 0) continue;
            failed |= add_canonical(table, canonical_key(COMPOSES, first, second), 0, code);
        }
    }
    for (uint32_t classes = read_number(&s); classes > 0; classes--) {
        rank += read_number(&s);
        code = 0;
        for (uint32_t runs = read_number(&s); runs > 0; runs--) {
            code += read_number(&s);
            for (uint32_t end = code + read_number(&s); code <= end; code++) {
                failed |= add_canonical(table, canonical_key(COMBINES, 0, code), rank, 0);
            }
        }
    }
    return -failed;
}

/* Appends what a character decomposes into; returns the new number of pieces. */
static size_t take_apart(const Table *table, uint32_t code, uint64_t *pieces, size_t n)
{
    const Slot *parts = look_up(table, canonical_key(DECOMPOSES, 0, code));
    if (parts) {
        n = take_apart(table, parts->rank, pieces, n);
        return parts->id ? take_apart(table, (uint32_t)parts->id, pieces, n) : n;
    }
    const Slot *mark = look_up(table, canonical_key(COMBINES, 0, code));
    pieces[n] = ((uint64_t)(mark ? mark->rank : 0) << PLACE_BITS | n) << CODE_BITS | code;
    return n + 1;
}

/* What two characters compose to, 0: nothing. Hangul syllables are in order of their parts. */
static uint32_t compose(const Table *table, uint32_t a, uint32_t b)
{
    uint32_t syllable = a - 0xAC00;
    if (a - 0x1100 < 19 && b - 0x1161 < 21) return 0xAC00 + ((a - 0x1100) * 21 + b - 0x1161) * 28;
    if (syllable < 11172 && syllable % 28 == 0 && b - 0x11A8 < 27) return a + b - 0x11A7;
    const Slot *slot = look_up(table, canonical_key(COMPOSES, a, b));
    return slot ? (uint32_t)slot->id : 0;
}

static int compare_pieces(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Sorts marks by class and joins what can be joined; returns how many pieces are left. */
static size_t put_together(const Table *table, uint64_t *pieces, size_t n)
{
    size_t kept = 0, base = n; /* the last character that is no mark */
    for (size_t i = 0, end = 0; i < n; i++) {
        if (i == end) {
            do end++;
            while (end < n && CLASS(pieces[i]) && CLASS(pieces[end]));
            if (end - i > 1) qsort(pieces + i, end - i, sizeof *pieces, compare_pieces);
        }
        int open = base < kept && (base + 1 == kept || CLASS(pieces[kept - 1]) < CLASS(pieces[i]));
        uint32_t joined = open ? compose(table, CODE(pieces[base]), CODE(pieces[i])) : 0;
        if (!joined && CLASS(pieces[i]) == 0) base = kept;
        pieces[joined ? base : kept++] = joined ? joined : pieces[i];
    }
    return kept;
}

/* Text (len) in form C, which the caller frees, NULL if there is no memory; len becomes its length.
 * Bytes that are no characters stay as they are. */
static char *normalize(const Table *table, const char *text, size_t *len)
{
    size_t n = 0, length = 0;
    uint32_t code;
    uint64_t *pieces = malloc((*len / 2 * 3 + 2) * sizeof *pieces); /* 2 bytes become 3 at most */
    for (size_t at = 0; pieces && at < *len;) {
        at += read_char(text + at, *len - at, &code);
        n = take_apart(table, code, pieces, n);
    }
    n = pieces ? put_together(table, pieces, n) : 0;
    char *normal = pieces ? malloc(4 * n + 1) : NULL;
    for (size_t i = 0; normal && i < n; i++) {
        length += write_char(normal + length, CODE(pieces[i]));
    }
    free(pieces);
    if (normal) *len = length;
    return normal;
}

/* ==== Merging ====================================================================================
 * The symbols of a word are a linked list, and all neighbours that make a piece are candidates in
 * a heap: best first, then leftmost. Merging the best one makes at most two new candidates; those
 * that it makes impossible stay until their turn comes, and then don't have the length of their
 * symbols any more. So n symbols take about n log n steps.
 */

typedef struct {
    uint32_t at, len;   /* bytes of the word; len 0: merged into the symbol before */
    int id;             /* token, or NO_TOKEN */
    int previous, next; /* symbols, -1: none */
} Symbol;

typedef struct {
    uint64_t order; /* rank << 32 | left symbol; the lowest is the best */
    uint32_t len;   /* of the two symbols */
    int id;         /* the token they make */
} Candidate;

/* The state of a call of encode. */
typedef struct {
    const tokenizer *t;
    int *tokens;
    size_t max, count;
    char *error;
    size_t error_size;
    int failed;
    int prefix;       /* a space goes in front of the next word */
    size_t room;      /* symbols that the arrays have room for */
    Symbol *symbols;  /* (room) of one word */
    Candidate *heap;  /* (2 * room): every merge takes one away and adds at most two */
    char *buffer;     /* (3 * room) the word in the spelling of the vocabulary */
    const char *word; /* the bytes of the symbols */
    size_t n_symbols, n_heap;
    Search search;
} Work;

/* Makes room for a word of n symbols; -1 when out of memory. */
static int begin_word(Work *w, size_t n)
{
    w->n_symbols = w->n_heap = 0;
    if (n <= w->room) return 0;
    free(w->symbols);
    free(w->heap);
    free(w->buffer);
    w->room = n + 64;
    w->symbols = malloc(w->room * sizeof *w->symbols);
    w->heap = malloc(w->room * 2 * sizeof *w->heap);
    w->buffer = malloc(w->room * 3);
    if (w->symbols && w->heap && w->buffer) return 0;
    set_error(w->error, w->error_size, "out of memory for a word of %zu bytes", n);
    w->room = 0;
    w->failed = 1;
    return -1;
}

/* Puts out a token. */
static void emit(Work *w, int id)
{
    if (w->count < w->max) w->tokens[w->count] = id;
    w->count++;
}

/* Puts out a symbol that is no token: as its bytes, or as the unknown token. */
static void emit_bytes(Work *w, const char *text, size_t len)
{
    const int *byte_tokens = w->t->byte_tokens, unknown = w->t->vocab.unknown;
    size_t spelt = 0;
    while (spelt < len && byte_tokens[(unsigned char)text[spelt]] >= 0) {
        spelt++;
    }
    for (size_t i = 0; i < len && spelt == len; i++) {
        emit(w, byte_tokens[(unsigned char)text[i]]);
    }
    if (spelt < len && unknown >= 0) {
        emit(w, unknown);
    } else if (spelt < len) {
        set_error(w->error, w->error_size, "the vocabulary has no token for the byte 0x%02X",
                  (unsigned char)text[spelt]);
        w->failed = 1;
    }
}

/* Appends a symbol to the word. */
static void add_symbol(Work *w, size_t at, size_t len, int id)
{
    int i = (int)w->n_symbols++;
    w->symbols[i] = (Symbol){ (uint32_t)at, (uint32_t)len, id, i - 1, -1 };
    if (i > 0) w->symbols[i - 1].next = i;
}

/* Adds a candidate to the heap. */
static void push(Work *w, Candidate candidate)
{
    Candidate *heap = w->heap;
    size_t i = w->n_heap++;
    for (; i > 0 && heap[(i - 1) / 2].order > candidate.order; i = (i - 1) / 2) {
        heap[i] = heap[(i - 1) / 2];
    }
    heap[i] = candidate;
}

/* Takes the best candidate from the heap, which isn't empty. */
static Candidate pop(Work *w)
{
    Candidate *heap = w->heap, best = heap[0], last = heap[--w->n_heap];
    size_t i = 0, n = w->n_heap;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        child += child + 1 < n && heap[child + 1].order < heap[child].order;
        if (heap[child].order >= last.order) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return best;
}

/* The rank of a score: the higher the score the lower the rank, equal for equal ones, NaN last. */
static uint32_t score_rank(float score)
{
    uint32_t bits;
    if (score != score) return UINT32_MAX;
    score += 0.0f; /* turns -0 into 0 */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFF; /* bits rise with the magnitude of a float */
}

/* Makes a candidate of a symbol and the one behind it if they make a piece; left may be -1. */
static void propose(Work *w, int left)
{
    const tokenizer *t = w->t;
    if (left < 0 || w->symbols[left].next < 0) return;
    const Symbol *a = &w->symbols[left], *b = &w->symbols[a->next];
    Candidate candidate = { 0, a->len + b->len, NO_TOKEN };
    uint32_t rank = 0;
    if (t->vocab.kind == TOKENIZER_SPM) {
        candidate.id = find_piece(t, w->word + a->at, candidate.len);
        if (candidate.id >= 0 && t->vocab.scores) rank = score_rank(t->vocab.scores[candidate.id]);
    } else if (a->id >= 0 && b->id >= 0) {
        const Slot *merge = look_up(&t->merges, ((uint64_t)a->id << 32 | (uint32_t)b->id) + 1);
        candidate.id = merge ? merge->id : NO_TOKEN;
        rank = merge ? merge->rank : 0;
    }
    candidate.order = (uint64_t)rank << 32 | (uint32_t)left;
    if (candidate.id >= 0) push(w, candidate);
}

/* Merges the symbols of the word and puts out what they become. */
static void merge_word(Work *w)
{
    Symbol *symbols = w->symbols;
    for (size_t i = 0; i < w->n_symbols; i++) {
        propose(w, (int)i);
    }
    while (w->n_heap > 0) {
        Candidate best = pop(w);
        int left = (int)(uint32_t)best.order;
        Symbol *a = &symbols[left];
        if (a->len == 0 || a->next < 0 || a->len + symbols[a->next].len != best.len) continue;
        Symbol *b = &symbols[a->next];
        a->len = best.len;
        a->id = best.id;
        a->next = b->next;
        b->len = 0;
        if (a->next >= 0) symbols[a->next].previous = left;
        propose(w, a->previous);
        propose(w, left);
    }
    for (int i = w->n_symbols ? 0 : -1; i >= 0 && !w->failed; i = symbols[i].next) {
        if (symbols[i].id >= 0) {
            emit(w, symbols[i].id);
        } else {
            emit_bytes(w, w->word + symbols[i].at, symbols[i].len);
        }
    }
}

/* ==== Encode =====================================================================================
 * Special tokens are cut out of the text first; what lies between them is split and merged.
 */

/* Encodes a word of byte-level BPE. As in Hugging Face tokenizers, bytes without a token are left
 * out, so that their neighbours may merge: some models have none for a few control characters. */
static void encode_word(Work *w, const char *text, size_t len)
{
    const tokenizer *t = w->t;
    if (begin_word(w, len) < 0) return;
    if (t->rule->flags & IGNORE_MERGES && len <= t->longest) {
        int id = find_piece(t, w->buffer, spell(w->buffer, text, len));
        if (id >= 0) {
            emit(w, id);
            return;
        }
    }
    w->word = text;
    for (size_t i = 0; i < len; i++) {
        int id = t->byte_tokens[(unsigned char)text[i]];
        if (id >= 0) add_symbol(w, i, 1, id);
    }
    merge_word(w);
}

/* Encodes a word of SentencePiece: spaces become U+2581, with one more in front if w->prefix. */
static void encode_pieces(Work *w, const char *text, size_t len)
{
    if (begin_word(w, len + 1) < 0) return;
    char *word = w->buffer;
    size_t n = 0;
    for (size_t i = 0; i < len; i += !w->prefix, w->prefix = 0) {
        if (w->prefix || text[i] == ' ') {
            memcpy(word + n, SPACE_MARK, 3);
            n += 3;
        } else {
            word[n++] = text[i];
        }
    }
    w->word = word;
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t code;
        length = read_char(word + at, n - at, &code);
        add_symbol(w, at, length, find_piece(w->t, word + at, length));
    }
    merge_word(w);
}

/* Splits text by the rule's patterns from number `pattern` on, and encodes the words. */
static void encode_words(Work *w, int pattern, const char *text, size_t len)
{
    if (pattern == w->t->n_patterns) {
        w->t->vocab.kind == TOKENIZER_BPE ? encode_word(w, text, len) : encode_pieces(w, text, len);
        return;
    }
    for (size_t at = 0, from, to; at < len && !w->failed; at = to) {
        int found = search(&w->search, &w->t->patterns[pattern], text, len, at, &from, &to);
        if (!found) from = to = len;
        if (from > at) encode_words(w, pattern + 1, text + at, from - at);
        if (found) encode_words(w, pattern + 1, text + from, to - from);
    }
}

/* Encodes text without special tokens. */
static void encode_plain(Work *w, const char *text, size_t len)
{
    char *normal = NULL;
    size_t settled = 0; /* characters below U+0300 are normal, whatever precedes them */
    while (settled < len && (unsigned char)text[settled] < 0xCC) settled++;
    if (settled < len && w->t->rule->flags & NFC) {
        text = normal = normalize(&w->t->canonical, text, &len);
        if (!normal) set_error(w->error, w->error_size, "out of memory for %zu bytes", len);
        w->failed |= !normal;
    }
    if (!w->failed) encode_words(w, 0, text, len);
    free(normal);
}

/* Encodes text, which is the parts joined. The space prefix of SentencePiece goes in front of every
 * piece of text that lies behind a special token, as in llama.cpp and in the tokenizer.json of the
 * models that have it. A few have a tokenizer that puts it at the beginning of the text alone (the
 * prepend_scheme "first"), or that looks for some of its special tokens in text that has its prefix
 * already ("normalized"): GGUF says neither, so they are taken for the others. */
static void encode_text(Work *w, const char *text, const tokenizer_part *part, size_t len,
                        int flags)
{
    size_t end = part->text.len; /* of the part that is looked at */
    int prefix = w->t->vocab.add_space_prefix;
    w->prefix = prefix && (flags & TOKENIZER_BEGIN || w->count > 0);
    flags &= ~TOKENIZER_SPECIAL;
    for (size_t start = 0, at = 0; start < len && !w->failed; start = at) {
        size_t length = 0;
        int id = NO_TOKEN;
        for (; at < len; at++) {
            while (at >= end) end += (++part)->text.len; /* white space may reach over it */
            id = find_special(w->t, text + at, end - at,
                              flags | (part->special ? TOKENIZER_SPECIAL : 0), &length);
            if (id >= 0) break;
        }
        if (at > start) encode_plain(w, text + start, at - start);
        if (id >= 0) emit(w, id);
        w->prefix = prefix;
        at += length;
        for (Char c; id >= w->t->swallowing && at < len;) {
            size_t next = next_char(w->t->categories, 0, text, at, len, &c);
            if (!(c.mask & WHITE)) break;
            at = next;
        }
    }
}

/* All parts in one piece of memory, which the caller frees where there are several. */
static char *join_parts(const tokenizer_part *parts, int n, size_t len)
{
    char *text = n == 1 ? (char *)parts->text.data : malloc(len + 1), *to = text;
    for (int i = 0; text && n > 1 && i < n; i++) {
        if (parts[i].text.len) memcpy(to, parts[i].text.data, parts[i].text.len);
        to += parts[i].text.len;
    }
    return text;
}

int tokenizer_encode_parts(const tokenizer *t, const tokenizer_part *parts, int n_parts, int flags,
                           int *tokens, int max, char *error, size_t size)
{
    size_t len = 0;
    for (int i = 0; i < n_parts && len <= MAX_TEXT; i++) {
        len = parts[i].text.len > MAX_TEXT ? parts[i].text.len : len + parts[i].text.len;
    }
    if (len > MAX_TEXT) {
        set_error(error, size, "the text has %zu bytes, more than 1 GB", len);
        return -1;
    }
    char *text = n_parts > 0 ? join_parts(parts, n_parts, len) : NULL;
    Work *w = calloc(1, sizeof *w);
    if (!w || (len && !text)) {
        if (n_parts > 1) free(text);
        free(w);
        set_error(error, size, "out of memory for a text of %zu bytes", len);
        return -1;
    }
    *w = (Work){ .t = t, .tokens = tokens, .max = max > 0 ? (size_t)max : 0 };
    w->error = error;
    w->error_size = size;
    w->search.categories = t->categories;
    w->search.now = w->search.ways[0];
    w->search.next = w->search.ways[1];
    if (flags & TOKENIZER_BOS && t->vocab.bos >= 0) emit(w, t->vocab.bos);
    if (len) encode_text(w, text, parts, len, flags);
    if (w->count > INT_MAX) set_error(error, size, "the text has %zu tokens, too many", w->count);
    int result = w->failed || w->count > INT_MAX ? -1 : (int)w->count;
    if (n_parts > 1) free(text);
    free(w->symbols);
    free(w->heap);
    free(w->buffer);
    free(w);
    return result;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t len, int flags, int *tokens,
                     int max, char *error, size_t size)
{
    tokenizer_part whole = { { text, len }, flags & TOKENIZER_SPECIAL };
    return tokenizer_encode_parts(t, &whole, 1, flags, tokens, max, error, size);
}

/* ==== Decode ================================================================================== */

size_t tokenizer_decode(const tokenizer *t, const int *tokens, int n, int flags, char *text,
                        size_t size)
{
    size_t total = 0;
    int spm = t->vocab.kind == TOKENIZER_SPM;
    int prefix = spm && flags & TOKENIZER_BEGIN && t->vocab.add_space_prefix;
    for (int i = 0, begins = prefix; i < n; i++) {
        int id = tokens[i];
        if (id < 0 || id >= t->vocab.n_tokens) continue;
        /* an unknown token mostly stands for a character, which the same text goes on behind */
        int special = tokenizer_is_special(t, id), unknown = type_of(t, id) == TOKEN_UNKNOWN;
        const char *raw = t->raw + t->raw_at[id];
        size_t len = t->raw_at[id + 1] - t->raw_at[id];
        if (begins && !special && len > 0) {
            int space = raw[0] == ' ';
            raw += space;
            len -= (size_t)space;
            begins = 0;
        }
        if (special && !unknown) begins = prefix;
        if (is_control(t, id) && !(flags & TOKENIZER_SPECIAL)) continue;
        if (total < size) memcpy(text + total, raw, len < size - total ? len : size - total);
        total += len;
    }
    if (size > 0) text[total < size ? total : size - 1] = 0;
    return total;
}

/* ==== Making a tokenizer ====================================================================== */

/* SPM: whether some piece has a space behind the end of a word. */
static int has_joined_words(const tokenizer *t)
{
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        tokenizer_text token = t->vocab.tokens[id];
        for (size_t i = 1; i + 3 <= token.len; i++) {
            int behind_mark = i >= 3 && memcmp(token.data + i - 3, SPACE_MARK, 3) == 0;
            if (memcmp(token.data + i, SPACE_MARK, 3) == 0 && !behind_mark) return 1;
        }
    }
    return 0;
}

/* BPE: adds the merge "left right". 1: done, 0: it doesn't fit the tokens, -1: out of memory. */
static int add_merge(tokenizer *t, tokenizer_text merge, int rank, char *joined)
{
    const char *space = merge.len > 2 ? memchr(merge.data + 1, ' ', merge.len - 2) : NULL;
    if (!space || merge.len - 1 > t->longest) return 0;
    size_t left_len = (size_t)(space - merge.data), right_len = merge.len - left_len - 1;
    memcpy(joined, merge.data, left_len);
    memcpy(joined + left_len, space + 1, right_len);
    int left = find_piece(t, joined, left_len), right = find_piece(t, space + 1, right_len);
    int id = tokenizer_find(t, joined, left_len + right_len);
    if (left < 0 || right < 0 || id < 0) return 0;
    /* what a merge makes was seen in texts, like the "<s>" of Qwen2's vocabulary, and is no mark */
    if (t->roles[id] == MARK && type_of(t, id) == TOKEN_NORMAL) t->roles[id] = PIECE;
    if (t->roles[id] != PIECE && t->roles[id] != CUT_OUT) return 0;
    Slot *slot = add_slot(&t->merges, ((uint64_t)left << 32 | (uint32_t)right) + 1);
    if (!slot) return -1;
    if (slot->id == NO_TOKEN) *slot = (Slot){ slot->key, (uint32_t)rank, id };
    return 1;
}

/* BPE: fills the table of merges; writes how many don't fit the tokens. */
static int index_merges(tokenizer *t, int *unfit)
{
    char *joined = malloc(t->longest + 1);
    int added = joined ? 0 : -1;
    for (int i = 0; i < t->vocab.n_merges && added >= 0; i++) {
        added = add_merge(t, t->vocab.merges[i], i, joined);
        *unfit += added == 0;
    }
    free(joined);
    return added < 0 ? -1 : 0;
}

/* Compiles the patterns of the rule. 0, -1: no memory, -2: a pattern is not understood. */
static int compile_rule(tokenizer *t)
{
    while (t->n_patterns < MAX_PATTERNS && t->rule->patterns[t->n_patterns]) {
        t->n_patterns++;
    }
    t->patterns = malloc((size_t)(t->n_patterns + 1) * sizeof *t->patterns);
    t->categories = calloc(CODE_POINTS, 1);
    if (!t->patterns || !t->categories) return -1;
    unpack_categories(t->categories);
    for (int i = 0; i < t->n_patterns; i++) {
        if (compile_pattern(&t->patterns[i], t->rule->patterns[i]) < 0) return -2;
    }
    return t->rule->flags & NFC ? unpack_canonical(&t->canonical) : 0;
}

/* Chooses the rule, with a warning if it isn't the one that the vocabulary names. */
static void choose_rule(tokenizer *t)
{
    const char *name = t->vocab.pre ? t->vocab.pre : "";
    if (t->vocab.kind == TOKENIZER_SPM) {
        t->rule = has_joined_words(t) ? &whole_text : &spm_words;
        return;
    }
    t->rule = find_rule(name);
    if (t->rule) return;
    t->rule = &rules[0];
    snprintf(t->warning, sizeof t->warning, "%s%.80s%s, so words are split as for GPT-2",
             *name ? "the word-splitting rule \"" : "no word-splitting rule is named", name,
             *name ? "\" is unknown" : "");
}

/* The first of the special tokens that take the white space behind them. GGUF has no key for them;
 * Phi-3 has such ones, and is known by their names. */
static int find_swallowing(const tokenizer *t)
{
    int end = tokenizer_find(t, "<|endoftext|>", 13);
    int mark = tokenizer_find(t, "<|placeholder1|>", 16);
    return t->vocab.kind == TOKENIZER_SPM && end >= 0 && mark == end + 2 ? end + 1 : INT_MAX;
}

/* Makes all tables. Returns like compile_rule. */
static int make_tables(tokenizer *t)
{
    int unfit = 0;
    if (index_spellings(t) < 0 || unpack_tokens(t) < 0) return -1;
    choose_rule(t);
    t->swallowing = find_swallowing(t);
    int result = compile_rule(t), bpe = t->vocab.kind == TOKENIZER_BPE;
    if (result == 0 && bpe) result = index_merges(t, &unfit);
    if (result == 0) result = index_special(t); /* merges tell what is none */
    size_t n = strlen(t->warning);
    if (bpe && (unfit > 0 || t->vocab.n_merges == 0)) {
        snprintf(t->warning + n, sizeof t->warning - n, "%s%d of %d merges fit the tokens",
                 n ? "; " : "", t->vocab.n_merges - unfit, t->vocab.n_merges);
    }
    return result;
}

tokenizer *tokenizer_new(const tokenizer_vocab *vocab, char *error, size_t size)
{
    if (vocab->n_tokens <= 0 || !vocab->tokens) {
        set_error(error, size, "the vocabulary has no tokens");
        return NULL;
    }
    tokenizer *t = calloc(1, sizeof *t);
    int result = -1;
    if (t) {
        t->vocab = *vocab;
        if (vocab->bos >= vocab->n_tokens) t->vocab.bos = -1;
        if (vocab->unknown >= vocab->n_tokens) t->vocab.unknown = -1;
        if (vocab->n_merges < 0 || !vocab->merges) t->vocab.n_merges = 0;
        result = make_tables(t);
    }
    if (result == 0) return t;
    if (result == -1) {
        set_error(error, size, "out of memory for a vocabulary of %d tokens", vocab->n_tokens);
    } else {
        set_error(error, size, "a pattern of the rule %s can't be compiled", t->rule->names);
    }
    tokenizer_free(t);
    return NULL;
}

void tokenizer_free(tokenizer *t)
{
    if (!t) return;
    free(t->spellings.slots);
    free(t->raw);
    free(t->raw_at);
    free(t->roles);
    free(t->special.slots);
    free(t->merges.slots);
    free(t->patterns);
    free(t->categories);
    free(t->canonical.slots);
    free(t);
}

const char *tokenizer_warning(const tokenizer *t)
{
    return t->warning[0] ? t->warning : NULL;
}
