# shellcheck shell=bash
# Default configs and properties of the trainers: part of common.sh.

# shellcheck disable=SC2034  # read by the scripts
ALL_TRAINERS="ZeroshotCLIP ZeroshotCLIP2 LinearProbe CoOp CoCoOp VPT IVLP MaPLe PromptSRC DCPL \
QuaternionPrompt"

# Print the default config of TRAINER for PROTOCOL (base2new, few_shot or transfer) and SHOTS: its
# authors' settings where they published any.
default_config() {
    case $PROTOCOL-$TRAINER in
        *-ZeroshotCLIP* | *-LinearProbe) echo vit_b16 ;;
        few_shot-CoOp)
            case $SHOTS in
                1) echo vit_b16_ep50 ;;
                2 | 4) echo vit_b16_ep100 ;;
                *) echo vit_b16 ;;
            esac
            ;;
        transfer-CoOp) echo vit_b16_ep50_ctxv1 ;;
        *-CoOp) echo vit_b16_ctxv1 ;;
        *-CoCoOp) echo vit_b16_c4_ep10_batch1_ctxv1 ;;
        *-VPT) echo vit_b16_c2_ep5_batch4_4 ;;
        *-IVLP) echo vit_b16_c2_ep5_batch4_2+2ctx ;;
        transfer-MaPLe | transfer-DCPL) echo vit_b16_c2_ep5_batch4_2ctx_cross_datasets ;;
        *-MaPLe | *-DCPL) echo vit_b16_c2_ep5_batch4_2ctx ;;
        few_shot-PromptSRC) echo vit_b16_c2_ep50_batch4_4+4ctx_few_shot ;;
        transfer-PromptSRC) echo vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets ;;
        *-PromptSRC) echo vit_b16_c2_ep20_batch4_4+4ctx ;;
        transfer-QuaternionPrompt) echo vit_b16_c2_ep25_batch4_2ctx_cross_datasets ;;
        *-QuaternionPrompt) echo vit_b16_c2_ep15_batch4_2ctx ;;
        *) die "$TRAINER has no default config: set CFG to a file of configs/trainers/$TRAINER" ;;
    esac
}

# Print the default shots of PROTOCOL.
default_shots() {
    if [ "$PROTOCOL" = few_shot ]; then echo 1 2 4 8 16; else echo 16; fi
}

# Succeed if TRAINER uses training images; one that does not is run once for all shots.
is_trained() {
    [[ $TRAINER != ZeroshotCLIP* ]]
}

# Succeed if TRAINER can classify classes it was not trained on; a linear layer cannot.
can_name_classes() {
    [ "$TRAINER" != LinearProbe ] ||
        { echo "LinearProbe cannot name other classes than its own: no test on them" && false; }
}
