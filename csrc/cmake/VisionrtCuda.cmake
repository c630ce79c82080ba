# Compiles csrc/*/*.cu to compressed fatbins and embeds them in _core.
#
# nvcc is used as a plain code generator: the extension links no CUDA library, so it imports on a
# machine with no driver. nvcc is looked for on PATH, in CUDA_HOME, in /usr/local/cuda, and in the
# nvidia-cuda-nvcc wheel beside the Python that builds.

set(VISIONRT_CUDA_ARCHITECTURES "75;80;86;87;89;90;100;120" CACHE STRING
    "SASS targets; those the nvcc at hand does not know are left out, the newest also gets PTX")

file(GLOB VISIONRT_KERNELS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/*/*.cu)

function(visionrt_find_nvcc out)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" "${CMAKE_SOURCE_DIR}/tools/dev/nvcc.py" --path
    OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
  if(status EQUAL 0)
    set(${out} "${found}" PARENT_SCOPE)
  else()
    set(${out} "" PARENT_SCOPE)
  endif()
endfunction()

set(nvcc "")
if(NOT VISIONRT_CUDA STREQUAL "OFF")
  visionrt_find_nvcc(nvcc)
  if(NOT nvcc AND VISIONRT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "VISIONRT_CUDA=ON, but no nvcc was found. Install the CUDA toolkit, or: "
                        "pip install 'trtconvert[cuda-compiler]'")
  endif()
endif()

set(fatbin_table "")
if(nvcc AND VISIONRT_KERNELS)
  execute_process(COMMAND "${nvcc}" --list-gpu-code OUTPUT_VARIABLE known_codes
                  COMMAND_ERROR_IS_FATAL ANY)
  set(gencode "")
  set(newest "")
  foreach(arch IN LISTS VISIONRT_CUDA_ARCHITECTURES)
    if(known_codes MATCHES "sm_${arch}[^0-9]")
      list(APPEND gencode -gencode "arch=compute_${arch},code=sm_${arch}")
      set(newest ${arch})
    endif()
  endforeach()
  list(APPEND gencode -gencode "arch=compute_${newest},code=compute_${newest}")
  message(STATUS "CUDA kernels: ${nvcc}, ${gencode}")

  set(fatbins "")
  file(GLOB_RECURSE kernel_headers CONFIGURE_DEPENDS
       ${CMAKE_SOURCE_DIR}/csrc/*.h ${CMAKE_SOURCE_DIR}/csrc/*.cuh)
  foreach(source IN LISTS VISIONRT_KERNELS)
    get_filename_component(stem "${source}" NAME_WE)
    set(fatbin "${CMAKE_BINARY_DIR}/${stem}.fatbin")
    add_custom_command(
      OUTPUT "${fatbin}"
      COMMAND "${nvcc}" -std=c++17 -O3 -fatbin -Xfatbin=-compress-all --fmad=false --threads 2
              -I "${CMAKE_SOURCE_DIR}/csrc" ${gencode} -o "${fatbin}" "${source}"
      DEPENDS "${source}" ${kernel_headers}
      COMMENT "nvcc ${stem}.cu"
      VERBATIM)
    list(APPEND fatbins "${fatbin}")
    string(APPEND fatbin_table "VISIONRT_FATBIN(${stem}, \"${fatbin}\")\n")
  endforeach()
  target_compile_definitions(_core PRIVATE VISIONRT_HAS_KERNELS=1)
  set_source_files_properties("${CMAKE_SOURCE_DIR}/csrc/cuda/fatbins.cpp" PROPERTIES
                              OBJECT_DEPENDS "${fatbins}")
else()
  message(STATUS "CUDA kernels: not built (VISIONRT_CUDA=${VISIONRT_CUDA}, nvcc '${nvcc}')")
endif()
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/generated/fatbin_table.inc" CONTENT "${fatbin_table}")
target_include_directories(_core PRIVATE "${CMAKE_BINARY_DIR}/generated")
